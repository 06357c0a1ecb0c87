"""Calibrations on Ray: what a single process observes, also if an engine is killed or finds an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from checkpoints import Checkpoints
from made_clips import blurred
from safetensors.numpy import save_file

from vivit_export.bundle import MODEL
from vivit_export.calibration.cache import Observations
from vivit_export.calibration.clips import find_calibration_clips
from vivit_export.calibration.collect import Observing, collect, observe_here
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.datasets import calibrate
from vivit_export.datasets.calibrate import ObservingOnRay
from vivit_export.datasets.cluster import Cluster, connected
from vivit_export.errors import CalibrationError, UsageError
from vivit_export.export.calibrate import calibration_graph
from vivit_export.export.graph.build import rewrite_graph, save_graph
from vivit_export.precision import Precision
from vivit_export.progress import Silent

pytestmark = pytest.mark.needs_onnxruntime

SHAPE = (4, 16, 16, 3)
KEY = {"model": "m" * 64, "clips": "d" * 64}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connected("local") as started:
        yield started


def ignore(_count: int) -> None: ...


class Run:
    """A tiny model and 36 clips, three of which cannot be used."""

    def __init__(self, checkpoints: Checkpoints, folder: Path) -> None:
        checkpoint = checkpoints.load(num_hidden_layers=1)
        model = rewrite_graph(checkpoint, ("logits",), Precision.INT8).model
        self.tensors = [group.tensor for group in calibration_graph(checkpoint, model)]
        self.model, self.data, self.cache = folder / "graph" / MODEL, folder / "crops.safetensors", folder / "cache"
        self.model.parent.mkdir()
        save_graph(model, self.model.parent)
        crops = blurred(np.random.default_rng(0), 36, SHAPE)
        crops[[5, 6, 20]] = 7
        save_file({"frames": crops}, self.data)

    def __call__(self, observing: Observing, count: Callable[[int], None] = ignore) -> Observations:
        clip, preprocess = Clip(4, 16, 16, (2, 8, 8)), Preprocess(shortest_edge=18, crop_size=(16, 16))
        contract = Contract(clip, preprocess, IO("crops", (Tensor("frames", "uint8", ("batch", *SHAPE)),), ()))
        clips = find_calibration_clips(self.data, contract)
        return collect(
            self.model, self.tensors, clips, tokens=2048, cache=self.cache, key=KEY, count=count, observing=observing
        )

    def again(self, observing: Observing, count: Callable[[int], None] = ignore) -> Observations:
        self.cache.unlink()
        return self(observing, count)


@pytest.fixture
def run(checkpoints: Checkpoints, tmp_path: Path) -> Run:
    return Run(checkpoints, tmp_path)


@pytest.fixture
def on_ray(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> ObservingOnRay:
    class Shared:
        """The Ray of this module, which does not end with a run."""

        def __enter__(self) -> Cluster:
            return cluster

        def __exit__(self, *_error: object) -> None: ...

    monkeypatch.setattr(calibrate, "connected", lambda _address: Shared())
    return ObservingOnRay("local", 1.0, Silent())


def require_same(found: Observations, whole: Observations) -> None:
    assert (found.done, found.set_aside) == (whole.done, whole.set_aside)
    assert set(found.tensors) == set(whole.tensors)
    for name, one in found.tensors.items():
        other = whole.tensors[name]
        assert (one.num_rows, one.histogram.largest) == (other.num_rows, other.histogram.largest)
        for field in ("channel_max", "channel_sum", "rows"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        np.testing.assert_array_equal(one.histogram.counts, other.histogram.counts)


def kill_engines() -> None:
    for process in psutil.Process().children(recursive=True):
        if "_FunctionActor" in " ".join(process.cmdline()):
            process.kill()


def test_ranges_are_those_of_one_process_also_after_a_kill_and_an_interruption(
    run: Run, on_ray: ObservingOnRay
) -> None:
    whole = run(observe_here)
    assert len(whole.set_aside) == 3
    counted: list[int] = []

    def kill_once(number: int) -> None:
        counted.append(number)
        if sum(counted) > 10 and "killed" not in killed:
            killed.append("killed")
            kill_engines()

    killed: list[str] = []
    require_same(run.again(on_ray, kill_once), whole)
    assert killed and sum(counted) == 36

    def stop(number: int) -> None:
        counted.append(number)
        if sum(counted) > 20:
            raise KeyboardInterrupt

    counted.clear()
    with pytest.raises(KeyboardInterrupt):
        run.again(on_ray, stop)
    require_same(run(on_ray), whole)


def test_an_error_of_ours_arrives_as_it_is_after_what_came_before(cluster: Cluster) -> None:
    def make() -> Callable[[int], int]:
        def refuse(number: int) -> int:
            if number == 2:
                raise CalibrationError("two")
            return number * number

        return refuse

    found = cluster.in_order(make, iter(range(5)), engines=2, gpus=0.0)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(CalibrationError, match=r"^two$"):
        next(found)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_of_a_gpu_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match=r"gpu_share=.* must be above 0 and at most 1"):
        ObservingOnRay("local", share, Silent())

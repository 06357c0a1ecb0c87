"""Real Ray: rows of a run, and clusters that cannot be used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from bundles import Bundles, need
from console import BIN
from ray_nodes import Nodes, nodes
from tables import read_table, single_process, without

from vivit_export.datasets.cluster import Cluster, choose_address, connected
from vivit_export.errors import EnvironmentFault, UsageError
from vivit_export.progress import Silent
from vivit_export.runtime.clips.folder import find_clips

pytestmark = pytest.mark.needs_onnxruntime


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes() as started:
        yield started


def vivit(
    *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "vivit", *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=400)


def test_a_run_on_a_cluster_gives_the_rows_of_a_single_process(
    bundles: Bundles, folder: Path, tmp_path: Path, cluster: Nodes
) -> None:
    bundle, out = bundles.demo(), tmp_path / "out"
    done = vivit("predict", bundle.path, folder, "--ray", "-o", out, "--json",
                 env={**cluster.env, "RAY_ADDRESS": cluster.address})  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 40 clips could not be used; ")
    assert f"1 engine on the Ray cluster at {cluster.address}: ONNX Runtime" in done.stderr
    rows, faults = single_process(bundle, find_clips(folder))
    assert without(read_table(out, "rows"), "clip", "window") == rows
    assert without(read_table(out, "faults"), "clip") == faults
    facts = json.loads(done.stdout)
    assert (facts["rows"], facts["faults"], facts["partitions"]) == (39, 1, 3)


def test_a_check_on_a_cluster_gives_the_figures_of_one_process(
    bundles: Bundles, folder: Path, tmp_path: Path, cluster: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("torch", "transformers", "onnx_ir")
    from one_process import use_one_process

    from vivit_export.datasets.check import check_dataset

    bundle, out = bundles.demo(precision="fp16"), tmp_path / "out"
    arguments = ("check", bundle.path, "--clips", folder.name, "--checkpoint", "demo", "-o", out, "--json", "-v")
    done = vivit(*arguments, "--ray", cluster.address, env=cluster.env, cwd=folder.parent)
    assert done.returncode == 3, done.stderr
    assert "error: 1 of 40 clips could not be used; " in done.stderr
    use_one_process(monkeypatch)
    here, _ = check_dataset(bundle, folder, tmp_path / "here", checkpoint="demo", progress=Silent())
    found = json.loads(done.stdout)
    assert found["clips"] == here.to_json()["clips"] and found["reference"] == here.reference
    assert [run["engine"] for run in found["runs"]] == [run.engine for run in here.runs]
    for there, run in zip(found["runs"], here.runs, strict=True):
        assert run.drift is not None and there["drift"]["top1"] == run.drift.top1
        assert there["drift"]["max"] == pytest.approx(run.drift.max, abs=1e-6)  # eager PyTorch has other threads there
    assert [part["differing"] for part in found["parity"]] == [0, 0]


def test_an_engine_that_cannot_be_opened_there_is_told(
    bundles: Bundles, folder: Path, tmp_path: Path, cluster: Nodes
) -> None:
    out = tmp_path / "out"
    arguments = ("predict", bundles.demo().path, folder, "--engine", "tensorrt", "-o", out)
    done = vivit(*arguments, "--ray", cluster.address, env=cluster.env)
    assert done.returncode == 7 and not done.stdout
    assert "error: tensorrt was requested but is not available: " in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()


def test_a_stranger_is_told_that_the_cluster_does_not_know_it(
    bundles: Bundles, folder: Path, tmp_path: Path, cluster: Nodes
) -> None:
    env = {**cluster.env, "RAY_AUTH_TOKEN": "0" * 32}
    done = vivit("predict", bundles.demo().path, folder, "--ray", cluster.address, "-o", tmp_path / "out", env=env)
    assert done.returncode == 7 and "Traceback" not in done.stderr, done.stderr
    assert f"error: the Ray cluster at {cluster.address} cannot be used: " in done.stderr


def test_a_cluster_of_another_version_is_refused(bundles: Bundles, folder: Path, tmp_path: Path) -> None:
    with nodes(version="2.9.0") as old:
        arguments = ("predict", bundles.demo().path, folder, "--ray", old.address, "-o", tmp_path / "out")
        done = vivit(*arguments, env=old.env)
    assert done.returncode == 7 and "Traceback" not in done.stderr, done.stderr
    assert f"error: the Ray cluster at {old.address} has Ray 2.9.0 on Python 3." in done.stderr


def test_a_cluster_that_is_not_there_is_told_at_once(bundles: Bundles, folder: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = vivit("predict", bundles.demo().path, folder, "-o", tmp_path / "out", "--ray", address)
    assert done.returncode == 7 and not done.stdout
    assert f"error: the Ray cluster at {address} cannot be reached: Connection refused; start it" in done.stderr


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose_address("") == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    assert choose_address("") == "10.0.0.5:6379"
    assert choose_address("local") == "local"
    assert choose_address("[::1]:6379") == "[::1]:6379"
    with pytest.raises(
        UsageError, match=r"'clips/' is not the address .*; put ray after everything else, or write ray=local"
    ):
        choose_address("clips/")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match=r"'ray://head:10001' \(from RAY_ADDRESS\) is not the address of a Ray"):
        choose_address("")


class StartingRay(ModuleType):
    """A Ray that gives up some times before it starts, and keeps what it was told."""

    def __init__(self, failures: int) -> None:
        super().__init__("ray")
        self.failures, self.told = failures, list[tuple[str | None, object]]()
        self.shutdowns = 0
        self.data, self.exceptions = ModuleType("ray.data"), ModuleType("ray.exceptions")
        vars(self.data).update(DataContext=SimpleNamespace(get_current=SimpleNamespace))
        vars(self.exceptions).update(RayError=type("RayError", (Exception,), {}))
        vars(self.exceptions).update(RayTaskError=type("RayTaskError", (Exception,), {}))

    def init(self, **options: object) -> None:
        self.told.append((os.environ.get("RAY_USAGE_STATS_ENABLED"), options["include_dashboard"]))
        if len(self.told) <= self.failures:
            raise RuntimeError("The current node timed out during startup\nmore")

    def shutdown(self) -> None:
        self.shutdowns += 1


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], StartingRay]:
    def make(failures: int) -> StartingRay:
        made = StartingRay(failures)
        for module in (made, made.data, made.exceptions):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return made

    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # so that they are afterwards what they were
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    return make


@pytest.mark.parametrize("failures", [0, 2])
def test_reports_to_rays_makers_are_off_before_it_starts(starting: Callable[[int], StartingRay], failures: int) -> None:
    ray = starting(failures)
    with connected("local") as cluster:
        assert cluster.text == "Ray on this machine"
    assert ray.told == [("0", False)] * (failures + 1)
    assert ray.shutdowns == failures + 1


def test_ray_that_never_starts_is_told_after_three_tries(starting: Callable[[int], StartingRay]) -> None:
    ray = starting(9)
    with pytest.raises(EnvironmentFault) as caught, connected("local"):
        pass
    assert str(caught.value) == (
        "Ray did not start on this machine: The current node timed out during startup; try again, when it is less busy"
    )
    assert caught.value.exit_code == 7
    assert len(ray.told) == 3


class FakeRay:
    """Nodes with GPUs, one of which is gone."""

    def nodes(self) -> list[dict[str, object]]:
        alive = ({"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}, {"CPU": 8.0, "GPU": 1.0})
        return [{"Alive": True, "Resources": found} for found in alive] + [{"Alive": False, "Resources": {"GPU": 8.0}}]


@pytest.mark.parametrize(
    ("share", "device", "engines"),
    [(1.0, None, (3, 1.0)), (0.5, None, (6, 0.5)), (0.4, "cuda", (6, 0.4)), (1.0, "cpu", (3, 0.0))],
)
def test_engines_fill_the_gpus_or_take_one_machine_each(
    share: float, device: str | None, engines: tuple[int, float]
) -> None:
    assert Cluster(FakeRay(), "a cluster").engines(share, device) == engines

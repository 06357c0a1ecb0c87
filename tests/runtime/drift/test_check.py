"""Running clips in full batches, what counts as a failure, and the clips that a bundle was checked on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from made_records import engine_record
from safetensors.numpy import save_file
from small_bundle import CONTENT, fill

from vivit_export.bundle import Bundle, read_bundle, write_manifest
from vivit_export.bundle.checks import CheckedClips, DriftReport, Gate, Parity, Run
from vivit_export.bundle.engines import Profile
from vivit_export.contract import Task
from vivit_export.errors import BundleError, DriftError
from vivit_export.records import to_json
from vivit_export.runtime.drift.check import check_session, golden_clips, run_full_batches, tuned_batches
from vivit_export.runtime.drift.metrics import compare

GATE = Gate({"max": 0.01})
TASK: Task = "single_label_classification"
LOGITS = np.array([[0.0, 1.0, 3.0], [4.0, 0.5, 1.0], [0.0, 5.0, 1.0]], np.float32)


class Network:
    """Gives the logits of the clips by their number, and remembers the batches it ran."""

    def __init__(self, error: float = 0.0) -> None:
        self.error = error
        self.batches: list[list[int]] = []

    def run(self, clips: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        self.batches.append(clips.tolist())
        return {"logits": LOGITS[clips] + np.float32(self.error)}


@pytest.mark.parametrize(
    ("size", "batches"),
    [
        (1, [[0], [1], [2]]),
        (2, [[0, 1], [2]]),
        (3, [[0, 1, 2]]),
        (5, [[0, 1, 2, 0, 1]]),
    ],
)
def test_the_batch_is_full_even_of_few_clips(size: int, batches: list[list[int]]) -> None:
    network = Network()
    run = run_full_batches(network.run, "made up", np.arange(3), {"logits": LOGITS}, GATE, TASK, size)
    assert network.batches == batches
    assert (run.engine, run.batch, run.gated, run.note) == ("made up", size, True, "")
    assert run.drift is not None and (run.drift.top1, run.drift.max_abs) == (1.0, 0.0)


def test_each_result_is_held_to_its_own_clip() -> None:
    """Clips that come again are compared with their own reference, not with the next row's."""

    def swap(clips: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        return {"logits": LOGITS[clips[::-1]]}

    run = run_full_batches(swap, "swaps", np.arange(3), {"logits": LOGITS}, GATE, TASK, 2)
    assert run.drift is not None and run.drift.top1 == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("batches", "more", "tried"),
    [((1, 8), (), [1, 8]), ((1, 8), (4, 16, 1), [1, 4, 8]), ((4, 4), (1,), [4]), ((0, 2), (), [1, 2])],
)
def test_a_session_is_tried_at_both_ends_and_where_engines_are_tuned(
    batches: tuple[int, int], more: tuple[int, ...], tried: list[int]
) -> None:
    contract = SimpleNamespace(task=TASK)
    session: Any = SimpleNamespace(run=Network().run, details="made up 1.0", batches=batches, contract=contract)
    runs = check_session(session, np.arange(3), {"logits": LOGITS}, GATE, more)
    assert [run.batch for run in runs] == tried
    assert {run.engine for run in runs} == {"made up 1.0"}


def run_of(error: float, *, gated: bool = True) -> Run:
    return Run("made up", 2, gated, compare({"logits": LOGITS}, {"logits": LOGITS + np.float32(error)}, 0.0))


def report(*runs: Run, parity: tuple[Parity, ...] = ()) -> DriftReport:
    return DriftReport("eager fp32", CheckedClips("mine", ("a.mp4",)), GATE, runs, parity)


def test_within_the_gate_nothing_is_said() -> None:
    found = report(run_of(0.01), run_of(9.0, gated=False), Run("left out", 8, True, None, "too large"))
    assert found.passed and found.failures() == []
    found.require()


def test_every_run_beyond_the_gate_is_named() -> None:
    found = report(run_of(0.01), run_of(0.1), run_of(0.2))
    assert not found.passed and len(found.failures()) == 2
    with pytest.raises(
        DriftError, match=r"^drift beyond the gate in made up at batch 2: .*max .*; nothing was written$"
    ):
        found.require("; nothing was written")


@pytest.mark.parametrize(("differing", "gated", "passed"), [(0, True, True), (1, True, False), (1, False, True)])
def test_one_pixel_is_a_failure_where_pixels_are_gated(differing: int, gated: bool, passed: bool) -> None:
    found = report(run_of(0.0), parity=(Parity("the graph", "the runtime", 9, differing, 0.5, gated),))
    assert found.passed is passed
    assert [s.startswith("1 of 9 pixel values of the graph differ") for s in found.failures()] == [True] * (not passed)


def test_json_has_every_field() -> None:
    plain = report(run_of(0.0)).to_json()
    assert set(plain) == {
        "reference",
        "clips",
        "gate",
        "runs",
        "parity",
        "blocks",
        "taps",
        "view",
        "accuracy",
        "baseline",
    }
    assert plain["clips"] == {
        "source": "mine",
        "names": ["a.mp4"],
        "videos": [],
        "views": [1, 1],
        "left_out": 0,
    } and plain["gate"] == {"max": 0.01}
    left_out = to_json(Run("left out", 8, True, None, "too large"))
    assert (left_out["drift"], left_out["note"]) == (None, "too large")


def bundle_with(folder: Path, golden: Mapping[str, npt.NDArray[Any]]) -> Bundle:
    folder.mkdir()
    fill(folder)
    save_file(dict(golden), folder / "golden.safetensors")
    write_manifest(folder, CONTENT)
    return read_bundle(folder)


def test_golden_clips_are_those_of_the_file(tmp_path: Path) -> None:
    frames = np.arange(3 * 8 * 64 * 64 * 3, dtype=np.uint64).astype(np.uint8).reshape(3, 8, 64, 64, 3)
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    found, results = golden_clips(bundle_with(tmp_path / "b", {"frames": frames, "logits": logits, "more": logits}))
    np.testing.assert_array_equal(found, frames)
    assert set(results) == {"logits"}
    np.testing.assert_array_equal(results["logits"], logits)


@pytest.mark.parametrize("lacking", ["frames", "logits"])
def test_golden_clips_that_are_incomplete_are_refused(tmp_path: Path, lacking: str) -> None:
    frames, logits = np.zeros((1, 8, 64, 64, 3), np.uint8), np.zeros((1, 2), np.float32)
    whole: dict[str, npt.NDArray[Any]] = {"frames": frames, "logits": logits}
    del whole[lacking]
    with pytest.raises(BundleError, match=rf"golden\.safetensors lacks '{lacking}'; export the bundle again"):
        golden_clips(bundle_with(tmp_path / "b", whole))


def test_batches_that_engines_are_tuned_for(tmp_path: Path) -> None:
    profiles = {"a": Profile(1, 4, 8), "b": Profile(1, 2, 2), "c": Profile(3, 4, 9)}
    engines = {name: engine_record(profiles=(profile,)) for name, profile in profiles.items()}
    bundle = bundle_with(tmp_path / "b", {"frames": LOGITS})
    assert tuned_batches(Bundle(bundle.path, replace(bundle.manifest, engines=engines))) == (2, 4)
    assert tuned_batches(Bundle(bundle.path, replace(bundle.manifest, engines={}))) == ()

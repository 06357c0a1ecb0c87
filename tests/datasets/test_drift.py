"""Drift that is measured table by table is that of all clips at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bundles import Bundles

from vivit_export.bundle.checks import CheckedClips, Gate, Run
from vivit_export.bundle.clip_view import VideoFacts
from vivit_export.contract import Contract, Task, Tensor
from vivit_export.datasets import drift
from vivit_export.datasets.comparing import EMULATED, ENGINE, REFERENCE
from vivit_export.datasets.drift import Measured, measure_drift
from vivit_export.datasets.tables import check_schema, write_rows
from vivit_export.datasets.work import Place, Row
from vivit_export.runtime.drift.clip_view import ClipTally
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.truth import Truth

CLIPS, LABELS, PART = 300, 6, 17
GATE = Gate({"max": 0.02})
RUNS = {ENGINE: Run("engine", 8, True, None), EMULATED: Run("emulated", 1, True, None)}
NAMES = tuple(f"{'walk' if n % 3 else 'run'}/{n:03}.mp4" for n in range(CLIPS))
VIDEOS = tuple(VideoFacts(320 if n % 2 else 640, 240, 25.0, n / 25, "h264") if n % 5 else None for n in range(CLIPS))

Float32 = npt.NDArray[np.float32]


def arrays(outputs: tuple[str, ...], spread: float = 0.2) -> dict[str, dict[str, Float32]]:
    """What each run says of each clip: many flips, and one clip with an infinite value."""
    random = np.random.default_rng(7)
    width = {"logits": LABELS, "embedding": 5}
    reference = {name: random.normal(size=(CLIPS, width[name])).astype(np.float32) for name in outputs}
    found = {REFERENCE: reference}
    for run in RUNS:
        noise = random.normal(size=(CLIPS, 1)) ** 2 * spread
        found[run] = {n: (a + noise * random.normal(size=a.shape)).astype(np.float32) for n, a in reference.items()}
    found[EMULATED][outputs[0]][40, 0] = np.inf
    return found


def contract_of(base: Contract, outputs: tuple[str, ...], task: Task) -> Contract:
    tensors = {"logits": Tensor("logits", "float32", ("batch", LABELS)),
               "embedding": Tensor("embedding", "float32", ("batch", 5))}  # fmt: skip
    io = replace(base.io, outputs=tuple(tensors[name] for name in outputs))
    return replace(base, io=io, task=task, labels=tuple("abcdef") if "logits" in outputs else ())


def tables(folder: Path, contract: Contract, found: dict[str, dict[str, Float32]]) -> list[Path]:
    """The clips in tables of 17, and an empty one in the middle."""
    schema, paths = check_schema(contract, (REFERENCE, *RUNS)), list[Path]()
    for first in (*range(0, 170, PART), 170, *range(170, CLIPS, PART)):
        count = 0 if len(paths) == 10 else min(PART, CLIPS - first)
        rows = [
            Row(Place(n, f"clips/{NAMES[n]}", None, None, VIDEOS[n]), (),
                {f"{run}{name}": array[n] for run, outputs in found.items() for name, array in outputs.items()})
            for n in range(first, first + count)
        ]  # fmt: skip
        write_rows(paths_of := folder / f"part-{len(paths):06}.parquet", rows, schema, "key")
        paths.append(paths_of)
    return paths


@pytest.fixture
def base(bundles: Bundles) -> Contract:
    return bundles.demo().contract


@pytest.mark.parametrize(
    ("outputs", "task"),
    [
        (("logits", "embedding"), "single_label_classification"),
        (("logits",), "multi_label_classification"),
        (("logits",), "regression"),
        (("embedding",), "single_label_classification"),
    ],
)
def test_parts_lead_to_the_report_of_the_whole(
    base: Contract, tmp_path: Path, outputs: tuple[str, ...], task: Task
) -> None:
    contract, found = contract_of(base, outputs, task), arrays(outputs)
    known = np.random.default_rng(1).integers(0, LABELS, CLIPS)
    truth = Truth("labels.csv", tuple(map(int, known))) if (len(outputs), task[:6]) == (2, "single") else None
    measured = Measured(contract, GATE, RUNS, "eager", "clips", (1, 1), ())
    report = measure_drift(
        tables(tmp_path, contract, found), measured, truth, lambda video: video.removeprefix("clips/")
    )

    tally = ClipTally(found[REFERENCE], GATE.tie_margin, task, contract.labels, truth)
    clips, rows, runs = CheckedClips("clips", NAMES, VIDEOS), np.arange(CLIPS), []
    for name, run in RUNS.items():
        whole = compare(found[REFERENCE], found[name], GATE.tie_margin, task)
        runs.append(replace(run, drift=replace(whole, accuracy_drop=tally.accuracy_drop(rows, found[name]))))
        tally.add(runs[-1], rows, found[name])
    assert report.clips == clips and report.reference == "eager" and report.gate == GATE
    assert report.view == tally.view(clips, runs)
    assert report.accuracy == tally.accuracy(runs)
    for ours, expected in zip(report.runs, runs, strict=True):
        assert ours.drift is not None and expected.drift is not None
        assert replace(ours, drift=None) == replace(expected, drift=None)
        for metric in expected.drift.__dataclass_fields__:
            value, whole_value = getattr(ours.drift, metric), getattr(expected.drift, metric)
            assert (value is None) == (whole_value is None), metric
            assert value is None or value == pytest.approx(whole_value, rel=1e-13, nan_ok=True), metric
    if task == "single_label_classification" and "logits" in outputs:
        assert report.view is not None and report.view.flips_left_out == 0 and len(report.view.clips) > 20
        assert {strata.by for strata in report.view.strata} >= {"class", "margin", "folder", "size", "seconds"}


def test_more_flips_than_are_described_are_counted(base: Contract, tmp_path: Path) -> None:
    contract = contract_of(base, ("logits",), "single_label_classification")
    found = arrays(("logits",), spread=3.0)
    report = measure_drift(
        tables(tmp_path, contract, found), Measured(contract, GATE, RUNS, "eager", "clips", (1, 1), ()), None, str
    )
    tally = ClipTally(found[REFERENCE], GATE.tie_margin, "single_label_classification", contract.labels)
    for name, run in RUNS.items():
        tally.add(run, np.arange(CLIPS), found[name])
    clips = CheckedClips("clips", tuple(f"clips/{name}" for name in NAMES), VIDEOS)
    assert report.view == tally.view(clips, list(RUNS.values()))
    assert report.view is not None and len(report.view.clips) == 120 and report.view.flips_left_out > 20


def test_of_very_many_clips_the_worst_are_listed(
    base: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = contract_of(base, ("logits",), "single_label_classification")
    paths = tables(tmp_path, contract, arrays(("logits",)))
    measured = Measured(contract, GATE, RUNS, "eager", "clips", (1, 1), ())
    whole = measure_drift(paths, measured, None, str)
    monkeypatch.setattr(drift, "MOST_LISTED", 150)
    part = measure_drift(paths, measured, None, str)
    assert whole.view is not None and part.view is not None
    assert (len(part.names), part.clips.left_out, part.clips.count) == (150, 150, CLIPS)
    assert repr(part.runs) == repr(whole.runs)  # NaN equals nothing
    assert (part.view.clips, part.view.strata) == (whole.view.clips, whole.view.strata)
    of = dict(zip(whole.names, zip(whole.view.flips, whole.view.drift, strict=True), strict=True))
    assert [of[name] for name in part.names] == list(zip(part.view.flips, part.view.drift, strict=True))
    left = [found for name, found in of.items() if name not in set(part.names)]
    assert {flip for flip, _ in left} == {"none"}
    listed = [d for f, d in zip(part.view.flips, part.view.drift, strict=True) if f == "none" and d is not None]
    assert max(d for _, d in left if d is not None) <= min(listed)
    assert list(part.names) == sorted(part.names, key=whole.names.index)

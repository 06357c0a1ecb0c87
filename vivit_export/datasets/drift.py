"""Measure the drift of all clips of a run, table by table.

The tables are read twice: for the range of the reference's logits, which differences are relative to, and to compare.
Of each clip, only its name, its figures and what its video is stay in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path

import numpy as np

from vivit_export.bundle.accuracy import Accuracy, merge_accuracies
from vivit_export.bundle.checks import CheckedClips, Drift, DriftReport, Gate, Parity, Run
from vivit_export.bundle.clip_view import FLIPS, ClipDrift, ClipView, Flip, VideoFacts
from vivit_export.contract import Contract
from vivit_export.datasets.comparing import REFERENCE
from vivit_export.datasets.tables import read_outputs, read_videos
from vivit_export.runtime.drift.clip_view import ClipTally, num_described
from vivit_export.runtime.drift.metrics import Comparison
from vivit_export.runtime.drift.per_clip import Outputs, scale_of
from vivit_export.runtime.drift.strata import strata_of
from vivit_export.runtime.drift.truth import Truth

MOST_LISTED = 25_000
"""Clips that a report lists by name; of more, those that flip or drift most."""
_Key = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured.

    Attributes:
        contract: of the model.
        gate: the limits.
        runs: a run without its drift, by what the names of its outputs begin with.
        reference: name of the reference.
        source: name of the clips.
        views: temporal and spatial views of each clip.
        parity: comparisons of preprocessed pixels.
    """

    contract: Contract
    gate: Gate
    runs: dict[str, Run]
    reference: str
    source: str
    views: tuple[int, int]
    parity: tuple[Parity, ...]


@dataclass(slots=True)
class _Clips:
    """The clips so far, in order."""

    names: list[str] = field(default_factory=list)
    videos: list[VideoFacts | None] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    drift: list[float | None] = field(default_factory=list)
    margins: list[float | None] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)
    flipped: int = 0
    described: list[tuple[_Key, ClipDrift]] = field(default_factory=list)

    def add(self, clips: CheckedClips, classes: Sequence[str], view: ClipView) -> None:
        self.names += clips.names
        self.videos += clips.videos
        self.classes += classes
        self.drift += view.drift
        self.margins += view.margins
        self.flips += view.flips
        self.flipped += len(view.flips) - view.flips.count("none")
        places = {name: place for place, name in enumerate(clips.names)}
        found = [(_key(view.flips[at], view.drift[at]), clip) for clip in view.clips for at in [places[clip.name]]]
        # Of equal ones the first come first, as they do in a single process.
        self.described = sorted(self.described + found, key=itemgetter(0), reverse=True)[: num_described(self.flipped)]


def _key(flip: Flip, drift: float | None) -> _Key:
    """Return what is larger the worse a clip is."""
    return FLIPS.index(flip), math.inf if drift is None else drift


def measure_drift(
    tables: Sequence[Path], measured: Measured, truth: Truth | None, name: Callable[[str], str]
) -> DriftReport:
    """Measure the drift of all clips.

    Args:
        tables: of their results, in order; one or more clips.
        measured: what is measured.
        truth: the known labels of all, in order.
        name: returns what the report calls a video.
    """
    outputs, runs = [tensor.name for tensor in measured.contract.io.outputs], list(measured.runs.values())
    scale = _scale(tables) if "logits" in outputs else 1.0
    margin, task, labels = measured.gate.tie_margin, measured.contract.task, measured.contract.labels
    compared = {run: Comparison(scale, margin, task) for run in measured.runs}
    clips, accuracies = _Clips(), list[Accuracy]()
    for table in tables:
        videos = read_videos(table, facts=True)
        if not videos:
            continue
        part = CheckedClips("", tuple(name(video) for video, _ in videos), tuple(facts for _, facts in videos))
        reference, *results = _outputs(table, (REFERENCE, *measured.runs), outputs)
        tally = ClipTally(reference, margin, task, labels, _part(truth, len(clips.names), len(videos)), scale)
        for (run, unmeasured), result in zip(measured.runs.items(), results, strict=True):
            compared[run].add(reference, result)
            tally.add(unmeasured, np.arange(len(videos)), result)
        view, accuracy = tally.view(part, runs), tally.accuracy(runs)
        assert view is not None  # all runs are gated
        clips.add(part, tally.classes, view)
        accuracies += [accuracy] if accuracy else []
    told = merge_accuracies(accuracies) if accuracies else None
    return _report(measured, [each.drift for each in compared.values()], clips, told)


def _outputs(table: Path, runs: Sequence[str], names: Sequence[str]) -> list[Outputs]:
    """Return the outputs of each run, by name."""
    found = read_outputs(table, [f"{run}{name}" for run in runs for name in names])
    return [{name: found[f"{run}{name}"] for name in names} for run in runs]


def _part(truth: Truth | None, first: int, count: int) -> Truth | None:
    return None if truth is None else replace(truth, classes=truth.classes[first : first + count])


def _scale(tables: Sequence[Path]) -> float:
    """Return `scale_of` the logits of the reference in all tables."""
    name, ends = f"{REFERENCE}logits", list[tuple[float, float]]()
    for table in tables:
        logits = read_outputs(table, [name])[name]
        if len(logits):
            ends.append((float(logits.min()), float(logits.max())))
    return scale_of(np.array(ends))


def _report(measured: Measured, drifts: Sequence[Drift], clips: _Clips, accuracy: Accuracy | None) -> DriftReport:
    drops = [accuracy.top1.share - run.top1.share for run in accuracy.runs] if accuracy else [None] * len(drifts)
    runs = tuple(
        replace(run, drift=replace(drift, accuracy_drop=drop))
        for run, drift, drop in zip(measured.runs.values(), drifts, drops, strict=True)
    )
    margin = measured.gate.tie_margin
    checked = CheckedClips(measured.source, tuple(clips.names), tuple(clips.videos), measured.views)
    strata = strata_of(checked, clips.classes, clips.margins, margin, clips.drift, clips.flips)
    listed = _listed(clips)
    has_logits = any(tensor.name == "logits" for tensor in measured.contract.io.outputs)
    view = ClipView(
        "logits" if has_logits else "embedding",
        margin,
        tuple(clip for _, clip in clips.described),
        max(0, clips.flipped - len(clips.described)),
        tuple(clips.drift[i] for i in listed),
        tuple(clips.margins[i] for i in listed),
        tuple(clips.flips[i] for i in listed),
        strata,
    )
    names, videos = tuple(clips.names[i] for i in listed), tuple(clips.videos[i] for i in listed)
    checked = replace(checked, names=names, videos=videos, left_out=len(clips.names) - len(listed))
    return DriftReport(measured.reference, checked, measured.gate, runs, measured.parity, view=view, accuracy=accuracy)


def _listed(clips: _Clips) -> Sequence[int]:
    """Return which clips the report lists, in order."""
    count = len(clips.names)
    if count <= MOST_LISTED:
        return range(count)
    drift = np.array([math.inf if each is None else each for each in clips.drift])
    flips = np.array([FLIPS.index(flip) for flip in clips.flips], np.int8)
    order: list[int] = np.sort(np.lexsort((-drift, -flips))[:MOST_LISTED]).tolist()
    return order

"""Keep the worst of each clip while the runs of a check go by, and show the clips that matter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.accuracy import Accuracy, Share, compare_hits
from vivit_export.bundle.checks import CheckedClips, Run
from vivit_export.bundle.clip_view import FLIPS, ClipDrift, ClipView, Score
from vivit_export.contract import Task
from vivit_export.runtime.drift.per_clip import (
    Doubles,
    Flags,
    Outputs,
    cosines,
    decisions,
    divergences,
    log_softmax,
    margins,
    nonfinite,
    scale_of,
)
from vivit_export.runtime.drift.strata import strata_of
from vivit_export.runtime.drift.truth import Truth

_MOST_CLIPS = 120  # with two lists of five labels each, about 250 kB of JSON
_WORST = 20
_TOP = 5


@dataclass(frozen=True)
class Hits:
    """About which clips a model is right: bool (N,) each.

    Attributes:
        top1: the best class is the label.
        top5: the label is among the five best.
    """

    top1: Flags
    top5: Flags


@dataclass
class _Worst:
    """The worst result of one clip so far; ``drift`` is infinite for values that are not finite."""

    run: Run
    flip: int
    drift: float
    row: dict[str, npt.NDArray[np.float32]]

    @property
    def key(self) -> tuple[int, float]:
        return self.flip, self.drift


@dataclass
class ClipTally:
    """Compares each run of a check with the reference, clip by clip.

    Memory: the results of one run.

    Attributes:
        reference: results (N, ...) by output name.
        tie_margin: see `Gate.tie_margin`.
        task: what the logits mean.
        labels: name of each logit; empty: they have none.
        truth: the known labels of the clips, for a task with one label for each.
        scale: what differences of logits are relative to, if these clips are a part of those that are checked; None:
            `scale_of` these.
    """

    reference: Outputs
    tie_margin: float
    task: Task
    labels: tuple[str, ...] = ()
    truth: Truth | None = None
    scale: float | None = None
    _worst: dict[int, _Worst] = field(default_factory=dict)
    _flipped_by: dict[int, list[Run]] = field(default_factory=dict)
    _hits: list[tuple[Run, Hits]] = field(default_factory=list)

    @cached_property
    def _scale(self) -> float:
        return scale_of(self.reference["logits"].astype(np.float64)) if self.scale is None else self.scale

    @property
    def has_logits(self) -> bool:
        """Whether clips are compared by their logits, and not by their embedding."""
        return "logits" in self.reference

    @np.errstate(invalid="ignore")  # NaN and infinity in a result are counted, not warned about
    def add(self, run: Run, clips: npt.NDArray[np.intp], result: Outputs) -> None:
        """Compare one run.

        Args:
            run: what ran; if it is not gated, only its flips are kept.
            clips: index of the clip of each row; a clip may come several times.
            result: results by output name, a row for each index.
        """
        if self.truth is not None:
            self._hits.append((run, self._hits_of(clips, result["logits"])))
        expected = {name: self.reference[name][clips] for name in result if name in self.reference}
        drift, flips = self._drift(expected, result), self._flips(expected, result)
        for row, clip in enumerate(map(int, clips)):
            found = _Worst(run, int(flips[row]), float(drift[row]), {n: result[n][row] for n in expected})
            if found.flip and run not in (by := self._flipped_by.setdefault(clip, [])):
                by.append(run)
            known = self._worst.get(clip)
            if run.gated and (known is None or found.key > known.key):
                self._worst[clip] = found

    def _drift(self, expected: Outputs, result: Outputs) -> Doubles:
        if self.has_logits:
            drift = np.abs(result["logits"].astype(np.float64) - expected["logits"]).max(axis=1) / self._scale
        else:
            drift = 1 - cosines(expected["embedding"], result["embedding"])
        return np.where(nonfinite(result) > 0, np.inf, drift)

    def _flips(self, expected: Outputs, result: Outputs) -> npt.NDArray[np.intp]:
        """Return the index in `FLIPS` of each row."""
        rows = len(next(iter(result.values())))
        if not self.has_logits or self.task == "regression":
            return np.zeros(rows, np.intp)
        ref, out = expected["logits"].astype(np.float64), result["logits"].astype(np.float64)
        found = decisions(ref, out, self.tie_margin, self.task, self._scale)
        clear = (found.flipped & ~found.near).reshape(rows, -1).any(axis=1)
        return np.where(clear, 2, found.flipped.reshape(rows, -1).any(axis=1).astype(np.intp))

    def _hits_of(self, clips: npt.NDArray[np.intp], logits: npt.NDArray[np.float32]) -> Hits:
        """Return which clips are right; one that comes several times must be right each time."""
        assert self.truth is not None
        known = np.array(self.truth.classes)
        best = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :_TOP]
        found = np.ones((2, len(known)), np.bool_)
        usable = np.isfinite(logits).all(axis=1)  # what is not a number is not right, whatever sorting makes of it
        np.logical_and.at(found[0], clips, (best[:, 0] == known[clips]) & usable)
        np.logical_and.at(found[1], clips, (best == known[clips, None]).any(axis=1) & usable)
        return Hits(found[0], found[1])

    def accuracy_drop(self, clips: npt.NDArray[np.intp], result: Outputs) -> float | None:
        """Return `Drift.accuracy_drop` of a run, as for `add`."""
        if self.truth is None:
            return None
        reference = self._hits_of(np.arange(len(self.truth.classes)), self.reference["logits"])
        return float(reference.top1.mean() - self._hits_of(clips, result["logits"]).top1.mean())

    def accuracy(self, runs: Sequence[Run]) -> Accuracy | None:
        """Return how often the reference and each run are right; None if no label is known."""
        if self.truth is None:
            return None
        places, count = {id(run): i for i, run in enumerate(runs)}, len(self.truth.classes)
        reference = self._hits_of(np.arange(count), self.reference["logits"])
        known = [bool(hit) for hit in reference.top1]
        found = [
            compare_hits(places[id(run)], known, list(map(bool, hits.top1)), list(map(bool, hits.top5)))
            for run, hits in self._hits
        ]
        top1, top5 = (Share.of(int(hits.sum()), count) for hits in (reference.top1, reference.top5))
        return Accuracy(self.truth.source, count, top1, top5, tuple(found))

    def view(self, clips: CheckedClips, runs: Sequence[Run]) -> ClipView | None:
        """Return what was found; None if no gated run was added.

        Args:
            clips: the clips by index.
            runs: all runs of the check.
        """
        if not self._worst:
            return None
        places = {id(run): i for i, run in enumerate(runs)}
        order = sorted(self._worst, key=lambda clip: self._worst[clip].key, reverse=True)
        flipped = sum(self._worst[clip].flip > 0 for clip in order)
        kept = num_described(flipped)
        drift = [_finite(self._worst[clip].drift) for clip in range(len(clips.names))]
        edges = self._margins()
        flips = [FLIPS[self._worst[clip].flip] for clip in range(len(clips.names))]
        return ClipView(
            "logits" if self.has_logits else "embedding",
            self.tie_margin,
            tuple(self._clip(clip, clips.names[clip], places, edges[clip]) for clip in order[:kept]),
            max(0, flipped - kept),
            tuple(drift),
            edges,
            tuple(flips),
            strata_of(clips, self.classes, edges, self.tie_margin, drift, flips),
        )

    @np.errstate(invalid="ignore")
    def _clip(self, clip: int, name: str, places: Mapping[int, int], margin: float | None) -> ClipDrift:
        worst = self._worst[clip]
        ref = {n: self.reference[n][clip][None] for n in worst.row}
        out = {n: values[None] for n, values in worst.row.items()}
        embedding = float(cosines(ref["embedding"], out["embedding"])[0]) if "embedding" in ref else None
        figures = self._figures(ref["logits"], out["logits"]) if self.has_logits else {}
        return ClipDrift(
            name=name,
            run=places[id(worst.run)],
            flip=FLIPS[worst.flip],
            changed=self._changed(ref, out),
            flips_in=tuple(sorted(places[id(run)] for run in self._flipped_by.get(clip, []))),
            margin=margin,
            max_abs=figures.get("max_abs"),
            max=figures.get("max"),
            kl=figures.get("kl"),
            cosine=figures.get("cosine"),
            embedding_cosine=_finite(embedding),
            nonfinite=int(nonfinite(out)[0]),
            reference=self._top(ref),
            ours=self._top(out),
            truth=None if self.truth is None else self._label(self.truth.classes[clip]),
        )

    @np.errstate(invalid="ignore")
    def _figures(self, ref: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> dict[str, float | None]:
        a, b = ref.astype(np.float64), out.astype(np.float64)
        largest = float(np.abs(b - a).max())
        kl = None if self.task == "regression" else float(divergences(a, b, self.task)[0])
        cosine = float(cosines(ref, out)[0]) if ref.shape[1] > 1 else None
        figures = {"max_abs": largest, "max": largest / self._scale, "kl": kl, "cosine": cosine}
        return {name: _finite(value) for name, value in figures.items()}

    def _changed(self, ref: Outputs, out: Outputs) -> tuple[str, ...]:
        if not self.has_logits or self.task != "multi_label_classification":
            return ()
        changed = np.flatnonzero((ref["logits"][0] >= 0) != (out["logits"][0] >= 0))
        return tuple(self._label(int(i)) for i in changed)

    @np.errstate(invalid="ignore", over="ignore")
    def _top(self, outputs: Outputs) -> tuple[Score, ...]:
        if not self.has_logits:
            return ()
        logits = outputs["logits"].astype(np.float64)
        chances: Doubles | None = None
        if self.task == "single_label_classification":
            chances = np.exp(log_softmax(logits))[0]
        elif self.task == "multi_label_classification":
            chances = np.exp(-np.logaddexp(0, -logits))[0]
        best = np.argsort(-logits[0], kind="stable")[:_TOP]
        return tuple(
            Score(self._label(int(i)), _finite(logits[0, i]), None if chances is None else _finite(chances[i]))
            for i in best
        )

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels else str(index)

    @property
    def classes(self) -> list[str]:
        """The known label of each clip, or else its best class by the reference; none for other tasks."""
        if self.truth is not None:
            return [self._label(i) for i in self.truth.classes]
        if not self.has_logits or self.task != "single_label_classification":
            return []
        return [self._label(int(i)) for i in self.reference["logits"].argmax(axis=1)]

    def _margins(self) -> tuple[float | None, ...]:
        """Return `ClipDrift.margin` of each clip."""
        if not self.has_logits or self.task == "regression":
            return (None,) * len(next(iter(self.reference.values())))
        logits = self.reference["logits"].astype(np.float64)
        if self.task == "single_label_classification":
            return tuple(_finite(margin / self._scale) for margin in margins(logits))
        distances = 2 * np.abs(logits) / self._scale
        found = []
        for clip, worst in sorted(self._worst.items()):
            changed = (logits[clip] >= 0) != (worst.row["logits"] >= 0)
            found.append(_finite(distances[clip][changed].max() if changed.any() else distances[clip].min()))
        return tuple(found)


def num_described(flipped: int) -> int:
    """Return how many clips a view describes if so many flipped: these, up to a limit, or else the worst few."""
    return max(_WORST, min(flipped, _MOST_CLIPS))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)

"""Drift: how far results are from the reference, in terms that matter to a user of the model.

The reference is the eager fp32 network on the same clips. Logit differences are relative to the range
(max - min) of the reference's logits, because logits have no unit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.checks import METRICS, OF_LABELS, Drift, Gate, why_useless
from vivit_export.contract import Task
from vivit_export.errors import UsageError, option
from vivit_export.precision import Precision
from vivit_export.runtime.drift.per_clip import Doubles, cosines, decisions, divergences, scale_of

Float = npt.NDArray[np.float32]


def parse_gate(
    text: str | None,
    precision: Precision,
    base: Mapping[str, float] | None = None,
    measured: Collection[str] = METRICS - OF_LABELS,
) -> Gate:
    """Parse ``top1=0.99,max=0.02``: the default limits, with these replaced or added.

    Args:
        text: as written on the command line.
        precision: whose defaults to start from.
        base: limits to start from instead, such as those a bundle was exported with.
        measured: the metrics that the model has; see `measured_metrics`.

    Raises:
        UsageError: an unknown metric, one with two limits, one that the model does not have, or a limit that is not a
            number or that no model could meet, or exceed.
    """
    if not isinstance(text, (str, type(None))):
        raise UsageError(f"{option('gate', repr(text))} must be text, such as top1=0.99,max=0.02")
    limits = {name: limit for name, limit in (base or precision.gate).items() if name in measured}
    given_before: set[str] = set()
    for item in filter(None, (text or "").split(",")):
        name, _, value = (part.strip() for part in item.partition("="))
        given = option("gate", repr(item))
        if name in given_before:
            raise UsageError(f"{given}: {name} has two limits; give one")
        given_before.add(name)
        if name not in METRICS:
            raise UsageError(f"{given}: {name!r} is not a metric; use one of {', '.join(sorted(METRICS))}")
        if name in OF_LABELS - set(measured):
            raise UsageError(
                f"{given}: {name} is measured only with known labels of the clips; check the bundle with "
                f"{option('labels', 'FILE')}"
            )
        if name not in measured:
            raise UsageError(
                f"{given}: this model has no {name}, because of its task or outputs; "
                f"use one of {', '.join(sorted(measured))}"
            )
        try:
            limits[name] = float(value)
        except ValueError:
            raise UsageError(f"{given}: {value!r} is not a number; write for instance {name}=0.99") from None
        if math.isnan(limits[name]):
            raise UsageError(f"{given}: a limit cannot be NaN")
        if reason := why_useless(name, limits[name]):
            raise UsageError(f"{given}: {reason}")
    return Gate(limits)


def compare(
    reference: Mapping[str, Float],
    result: Mapping[str, Float],
    tie_margin: float = 0.0,
    task: Task = "single_label_classification",
) -> Drift:
    """Compare results with the reference, both float32 arrays by output name with N rows.

    Args:
        reference: ``logits`` (N, num_labels) and/or ``embedding`` (N, hidden).
        result: the same outputs from the model under test.
        tie_margin: see `Gate.tie_margin`.
        task: what the logits mean.
    """
    logits = reference.get("logits")
    compared = Comparison(1.0 if logits is None else scale_of(logits.astype(np.float64)), tie_margin, task)
    compared.add(reference, result)
    return compared.drift


class Comparison:
    """Compares results with the reference part by part, in the memory of one part.

    Args:
        scale: `scale_of` all logits of the reference.
        tie_margin: see `Gate.tie_margin`.
        task: what the logits mean.

    Attributes:
        drift: of all parts so far; of one part, exactly what `compare` says.
    """

    def __init__(self, scale: float, tie_margin: float, task: Task) -> None:
        self._scale, self._tie_margin, self._task = scale, tie_margin, task
        self._squares, self._top5, self._values, self._decisions = 0.0, 0.0, 0, 0
        self.drift = Drift(0, None, None, None, None, None, None, None, None, None, None, 0)

    @np.errstate(invalid="ignore")  # NaN and infinity in a result are counted, not warned about
    def add(self, reference: Mapping[str, Float], result: Mapping[str, Float]) -> None:
        """Compare one part; see `compare`."""
        before, num_clips = self.drift, len(next(iter(reference.values())))
        bad = sum(int((~np.isfinite(a)).sum()) for a in result.values())
        drift = replace(before, num_clips=before.num_clips + num_clips, nonfinite=before.nonfinite + bad)
        if "embedding" in reference and "embedding" in result:
            found = cosines(reference["embedding"], result["embedding"]).min()
            drift = replace(drift, embedding_cosine=_least(before.embedding_cosine, found))
        self.drift = drift
        if "logits" in reference and "logits" in result:
            self._add_logits(reference["logits"].astype(np.float64), result["logits"].astype(np.float64))

    def _add_logits(self, ref: Doubles, out: Doubles) -> None:
        before = self.drift
        self._squares += float(np.add.reduce((out - ref) ** 2, axis=None))
        self._values += ref.size
        max_abs = _most(before.max_abs, np.abs(out - ref).max())
        # The cosine of one number is its sign, and says nothing of how far it is from the reference.
        cosine = _least(before.cosine, cosines(ref, out).min()) if ref.shape[1] > 1 else None
        rms = math.sqrt(self._squares / self._values) / self._scale
        self.drift = replace(before, max_abs=max_abs, max=max_abs / self._scale, rms=rms, cosine=cosine)
        if self._task != "regression":
            self._add_decisions(ref, out)

    def _add_decisions(self, ref: Doubles, out: Doubles) -> None:
        before, found = self.drift, decisions(ref, out, self._tie_margin, self._task, self._scale)
        flipped, near = found.flipped, found.near
        near_flips = (before.near_flips or 0) + int((flipped & near).sum())
        clear_flips = (before.clear_flips or 0) + int((flipped & ~near).sum())
        self._decisions += flipped.size
        same = (self._decisions - near_flips - clear_flips) / self._decisions
        kl = _most(before.kl, divergences(ref, out, self._task).max())
        self.drift = replace(before, kl=kl, near_flips=near_flips, clear_flips=clear_flips)
        if self._task == "multi_label_classification":
            self.drift = replace(self.drift, agreement=same)
            return
        self._top5 += _top_k_overlap(ref, out, 5)
        self.drift = replace(self.drift, top1=same, top5=self._top5 / self._decisions)


def _most(known: float | None, found: np.floating[Any]) -> float:
    return float(found if known is None else np.maximum(known, found))  # max() would lose NaN


def _least(known: float | None, found: np.floating[Any]) -> float:
    return float(found if known is None else np.minimum(known, found))


def _top_k_overlap(ref: Doubles, out: Doubles, k: int) -> float:
    """Return the sum over the clips."""
    k = min(k, ref.shape[1])
    best, ours = np.argsort(-ref, axis=1)[:, :k], np.argsort(-out, axis=1)[:, :k]
    return float(np.sum([len(set(a) & set(b)) / k for a, b in zip(best, ours, strict=True)]))

"""Drift: how far results are from the reference, in terms that matter to a user of the model.

The reference is the eager fp32 network on the same clips. Logit differences are relative to the range
(max - min) of the reference's logits, because logits have no unit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

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


@np.errstate(invalid="ignore")  # NaN and infinity in a result are counted, not warned about
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
    num_clips = len(next(iter(reference.values())))
    bad = sum(int((~np.isfinite(a)).sum()) for a in result.values())
    embedding = (
        float(cosines(reference["embedding"], result["embedding"]).min())
        if "embedding" in reference and "embedding" in result
        else None
    )
    drift = Drift(num_clips, None, None, None, None, None, None, None, None, None, embedding, bad)
    if "logits" not in reference or "logits" not in result:
        return drift
    ref, out = reference["logits"].astype(np.float64), result["logits"].astype(np.float64)
    scale = scale_of(ref)
    drift = replace(
        drift,
        max_abs=float(np.abs(out - ref).max()),
        max=float(np.abs(out - ref).max()) / scale,
        rms=float(np.sqrt(np.mean((out - ref) ** 2))) / scale,
        # The cosine of one number is its sign, and says nothing of how far it is from the reference.
        cosine=float(cosines(reference["logits"], result["logits"]).min()) if ref.shape[1] > 1 else None,
    )
    if task == "regression":
        return drift
    found, kl = decisions(ref, out, tie_margin, task), float(divergences(ref, out, task).max())
    flipped, near = found.flipped, found.near
    if task == "multi_label_classification":
        drift = replace(drift, agreement=float(np.mean(~flipped)), kl=kl)
    else:
        drift = replace(drift, top1=float(np.mean(~flipped)), top5=_top_k_overlap(ref, out, 5), kl=kl)
    return replace(drift, near_flips=int((flipped & near).sum()), clear_flips=int((flipped & ~near).sum()))


def _top_k_overlap(ref: Doubles, out: Doubles, k: int) -> float:
    k = min(k, ref.shape[1])
    best, ours = np.argsort(-ref, axis=1)[:, :k], np.argsort(-out, axis=1)[:, :k]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(best, ours, strict=True)]))

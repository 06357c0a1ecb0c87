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

from vivit_export.bundle.checks import METRICS, Drift, Gate, why_useless
from vivit_export.contract import Task
from vivit_export.errors import UsageError, option
from vivit_export.precision import Precision

Float = npt.NDArray[np.float32]


def parse_gate(
    text: str | None,
    precision: Precision,
    base: Mapping[str, float] | None = None,
    measured: Collection[str] = METRICS,
) -> Gate:
    """Parse ``top1=0.99,max=0.02``: the default limits, with these replaced or added.

    Args:
        text: as written on the command line.
        precision: whose defaults to start from.
        base: limits to start from instead, such as those a bundle was exported with.
        measured: the metrics that the model has; see `measured_metrics`.

    Raises:
        UsageError: an unknown metric, one that the model does not have, or a limit that is not a number or that no
            model could meet, or exceed.
    """
    limits = {name: limit for name, limit in (base or precision.gate).items() if name in measured}
    for item in filter(None, (text or "").split(",")):
        name, _, value = (part.strip() for part in item.partition("="))
        given = option("gate", repr(item))
        if name not in METRICS:
            raise UsageError(f"{given}: {name!r} is not a metric; use one of {', '.join(sorted(METRICS))}")
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
    nonfinite = sum(int((~np.isfinite(a)).sum()) for a in result.values())
    embedding = (
        _min_cosine(reference["embedding"], result["embedding"])
        if "embedding" in reference and "embedding" in result
        else None
    )
    drift = Drift(num_clips, None, None, None, None, None, None, None, None, None, embedding, nonfinite)
    if "logits" not in reference or "logits" not in result:
        return drift
    ref, out = reference["logits"].astype(np.float64), result["logits"].astype(np.float64)
    scale = logit_range(ref)
    drift = replace(
        drift,
        max_abs=float(np.abs(out - ref).max()),
        max=float(np.abs(out - ref).max()) / scale,
        rms=float(np.sqrt(np.mean((out - ref) ** 2))) / scale,
        # The cosine of one number is its sign, and says nothing of how far it is from the reference.
        cosine=_min_cosine(reference["logits"], result["logits"]) if ref.shape[1] > 1 else None,
    )
    if task == "regression":
        return drift
    if task == "multi_label_classification":
        flipped = (ref >= 0) != (out >= 0)  # a logit of 0 is a probability of one half
        # Only one logit can err here, and not two against each other as in a tie of two classes.
        near = np.abs(ref) <= tie_margin / 2 * scale
        drift = replace(drift, agreement=float(np.mean(~flipped)), kl=_max_kl_of_labels(ref, out))
    else:
        flipped, near = ref.argmax(1) != out.argmax(1), _margins(ref) <= tie_margin * scale
        drift = replace(drift, top1=float(np.mean(~flipped)), top5=_top_k_overlap(ref, out, 5), kl=_max_kl(ref, out))
    return replace(drift, near_flips=int((flipped & near).sum()), clear_flips=int((flipped & ~near).sum()))


def logit_range(reference: npt.NDArray[Any]) -> float:
    """Return the range of the reference's logits, which differences are relative to.

    One value, or equal ones, span nothing: their size is the scale then.
    """
    return float(np.ptp(reference)) or float(np.abs(reference).max()) or 1.0


def _margins(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the best minus the second-best logit of each clip."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    top = np.sort(logits, axis=1)
    margins: npt.NDArray[np.float64] = top[:, -1] - top[:, -2]
    return margins


def _top_k_overlap(ref: npt.NDArray[np.float64], out: npt.NDArray[np.float64], k: int) -> float:
    k = min(k, ref.shape[1])
    best, ours = np.argsort(-ref, axis=1)[:, :k], np.argsort(-out, axis=1)[:, :k]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(best, ours, strict=True)]))


def _max_kl(ref: npt.NDArray[np.float64], out: npt.NDArray[np.float64]) -> float:
    p, q = _log_softmax(ref), _log_softmax(out)
    # Rounding can leave a divergence of equal distributions at -1e-17. max() would turn NaN into 0.
    return float(np.maximum(0.0, (np.exp(p) * (p - q)).sum(axis=1).max()))


def _max_kl_of_labels(ref: npt.NDArray[np.float64], out: npt.NDArray[np.float64]) -> float:
    """Return the largest sum over a clip's labels, each of which is there with the sigmoid of its logit."""
    p = np.exp(-np.logaddexp(0, -ref))
    present = p * (np.logaddexp(0, -out) - np.logaddexp(0, -ref))
    absent = (1 - p) * (np.logaddexp(0, out) - np.logaddexp(0, ref))
    return float(np.maximum(0.0, (present + absent).sum(axis=1).max()))


def _log_softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = x - x.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _min_cosine(a: Float, b: Float) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    same = (x == y).all(axis=1)
    # A zero vector has no direction; it agrees with itself and with nothing else.
    cosines = np.divide((x * y).sum(axis=1), norms, out=np.zeros(len(x)), where=norms != 0)
    return float(np.where(same, 1.0, cosines).min())

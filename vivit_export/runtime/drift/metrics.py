"""Drift: how far results are from the reference, in terms that matter to a user of the model.

The reference is the eager fp32 network on the same clips. Logit differences are relative to the range
(max - min) of the reference's logits, because logits have no unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.checks import METRICS, Drift, Gate
from vivit_export.errors import UsageError, option
from vivit_export.precision import Precision

Float = npt.NDArray[np.float32]


def parse_gate(text: str | None, precision: Precision, base: Mapping[str, float] | None = None) -> Gate:
    """Parse ``top1=0.99,max=0.02``: the default limits, with these replaced or added.

    Args:
        text: as written on the command line.
        precision: whose defaults to start from.
        base: limits to start from instead, such as those a bundle was exported with.

    Raises:
        UsageError: an unknown metric or a limit that is not a number.
    """
    limits = dict(base or precision.gate)
    for item in filter(None, (text or "").split(",")):
        name, _, value = (part.strip() for part in item.partition("="))
        given = option("gate", repr(item))
        if name not in METRICS:
            raise UsageError(f"{given}: {name!r} is not a metric; use one of {', '.join(sorted(METRICS))}")
        try:
            limits[name] = float(value)
        except ValueError:
            raise UsageError(f"{given}: {value!r} is not a number; write for instance {name}=0.99") from None
        if math.isnan(limits[name]):
            raise UsageError(f"{given}: a limit cannot be NaN")
    return Gate(limits)


@np.errstate(invalid="ignore")  # NaN and infinity in a result are counted, not warned about
def compare(reference: Mapping[str, Float], result: Mapping[str, Float], tie_margin: float = 0.0) -> Drift:
    """Compare results with the reference, both float32 arrays by output name with N rows.

    Args:
        reference: ``logits`` (N, num_labels) and/or ``embedding`` (N, hidden).
        result: the same outputs from the model under test.
        tie_margin: see `Gate.tie_margin`.
    """
    nonfinite = sum(int((~np.isfinite(a)).sum()) for a in result.values())
    num_clips = len(next(iter(reference.values())))
    embedding = (
        _min_cosine(reference["embedding"], result["embedding"])
        if "embedding" in reference and "embedding" in result
        else None
    )
    if "logits" not in reference or "logits" not in result:
        return Drift(num_clips, None, None, None, None, None, None, None, None, None, embedding, nonfinite)
    ref, out = reference["logits"].astype(np.float64), result["logits"].astype(np.float64)
    scale = float(np.ptp(ref)) or 1.0
    flipped = ref.argmax(1) != out.argmax(1)
    near = _margins(ref) <= tie_margin * scale
    return Drift(
        num_clips=num_clips,
        top1=float(np.mean(~flipped)),
        top5=_top_k_overlap(ref, out, 5),
        near_flips=int((flipped & near).sum()),
        clear_flips=int((flipped & ~near).sum()),
        max_abs=float(np.abs(out - ref).max()),
        max=float(np.abs(out - ref).max()) / scale,
        rms=float(np.sqrt(np.mean((out - ref) ** 2))) / scale,
        kl=_max_kl(ref, out),
        # The cosine of one number is its sign, and says nothing of how far it is from the reference.
        cosine=_min_cosine(reference["logits"], result["logits"]) if ref.shape[1] > 1 else None,
        embedding_cosine=embedding,
        nonfinite=nonfinite,
    )


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

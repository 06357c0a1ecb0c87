"""Choose how to quantize each layer: its range, smoothing, weight clipping and bias correction.

SmoothQuant (arXiv:2211.10438) by powers of two moves the spread of activations into the weights:

    x W  =  (x / s) (diag(s) W),     s_j = max|x_j|^a / max|W_j|^(1 - a)

Without smoothing, channels far larger than the rest would leave only a few levels of a shared scale to the
rest. s_j is rounded to a power of two, so neither the division nor the product rounds in any floating-point
type: the fp16 graph computes the same bits with it. alpha is chosen for each layer by the error of its output
on the rows that the calibration kept.

Rounding the weights shifts the mean of the output, by the same amount on every clip. Bias correction
(arXiv:1906.04721) undoes the shift: E[x] W - E[x / s] Q(diag(s) W), with the channel means of all tokens of all clips.
It costs nothing, and is skipped if it does not lower the error on the kept rows.

The codes of Linears that share a scale need not reach the largest weight of them all: clipping it allows a smaller
step, which rounds all other weights less. For INT8, the clipping with the least squared error of the output is chosen,
by the mean square of each input channel (assuming uncorrelated channels). Columns with scales of their own fit to 1/127
already, and E4M3, whose steps grow with the value, gains nothing. With ``minmax``, nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.manifest import ClipsRecord
from vivit_export.calibration.cache import Observations, Observed
from vivit_export.calibration.linears import LinearGroup, quantize_input, quantize_weights
from vivit_export.calibration.observers import Histogram, find_range, joined
from vivit_export.calibration.ranges import Exponents, LayerRange, Ranges
from vivit_export.precision import Precision

Float32 = npt.NDArray[np.float32]

ALPHAS = (0.25, 0.5, 0.75, 1.0)
REACHES = range(70, 101, 2)
"""Percentages of the largest weight that INT8 codes may span."""
_WIDEST = 10  # exponents are kept within this of the median: fp16 has room for them
_PAYS = {
    Precision.INT8: {"free": 0.98, "mul": 0.7},
    Precision.FP8: {"free": 0.8, "mul": 0.7},
}
"""Smoothing must reduce the squared error to this share to be used. A multiplication by channel costs the CPU
engines a pass over the activations (TensorRT does it inside the GELU kernel). E4M3 has an exponent of its own:
a small gain on the kept rows had no effect on the logits of the demo."""


def find_ranges(
    layers: Sequence[LinearGroup],
    attention: Mapping[str, Sequence[str]],
    state: Observations,
    *,
    precision: Precision,
    method: str,
    smooth: str,
    key: Mapping[str, str],
    clips: ClipsRecord,
    count: Callable[[int], None],
) -> Ranges:
    """Turn observations into ranges: of each layer, and of each ``attention`` block's tensors, which share one."""
    found = {}
    for group in layers:
        found[group.name] = choose(group, state.tensors[group.tensor], precision, method, smooth)
        count(1)
    shared = {
        path: find_range(joined([state.tensors[name].histogram for name in tensors]), method, precision)
        for path, tensors in attention.items()
    }
    return Ranges(precision, method, dict(key), clips, found, shared)


@dataclass(frozen=True)
class _Case:
    """A layer, the observations of its input, and how to quantize it.

    Attributes:
        group: the layer.
        seen: observations of its input.
        precision: type of the codes.
        method: one of `observers.METHODS`.
        exact: outputs of each Linear on the kept rows.
    """

    group: LinearGroup
    seen: Observed
    precision: Precision
    method: str
    exact: list[Float32]


def choose(group: LinearGroup, seen: Observed, precision: Precision, method: str, smooth: str = "auto") -> LayerRange:
    """Find range and smoothing of one layer.

    Args:
        group: the layer.
        seen: observations of its input.
        precision: type of the codes.
        method: one of `observers.METHODS`.
        smooth: ``auto``, ``none``, or an alpha from 0 to 1 for every layer that can be smoothed for free.
    """
    case = _Case(group, seen, precision, method, [seen.rows @ weight for weight in group.weights])
    chosen = _smoothed(case, smooth)
    if precision is not Precision.INT8 or len(group.weights) == 1 or method == "minmax":
        return chosen
    clipped = _quantized(case, chosen.alpha, clip=True)
    return clipped if clipped.error < chosen.error else chosen


def _smoothed(case: _Case, smooth: str) -> LayerRange:
    plain, way = _quantized(case, None), case.group.smoothing
    if smooth == "none" or way == "none":
        return plain
    if smooth != "auto":
        return _quantized(case, float(smooth)) if way == "free" else plain
    best = min((_quantized(case, alpha) for alpha in ALPHAS), key=lambda found: found.error)
    return best if best.error < _PAYS[case.precision][way] * plain.error else plain


def smoothing_exponents(group: LinearGroup, seen: Observed, alpha: float) -> Exponents:
    """Return log2 of the formula's s, rounded; 0 for the median channel, and for channels that are always 0."""
    activation = seen.channel_max.astype(np.float64)
    weight = np.abs(group.joined).max(axis=1).astype(np.float64)
    used = (activation > 0) & (weight > 0)
    logs = np.zeros(len(activation))
    logs[used] = alpha * np.log2(activation[used]) - (1 - alpha) * np.log2(weight[used])
    centered = np.rint(logs - np.median(logs[used])) if used.any() else logs
    return np.where(used, np.clip(centered, -_WIDEST, _WIDEST), 0).astype(np.int64)


def _quantized(case: _Case, alpha: float | None, *, clip: bool = False) -> LayerRange:
    """Quantize with the smoothing of one alpha (None: no smoothing), with or without clipped weights."""
    group, seen, precision = case.group, case.seen, case.precision
    exponents = None if alpha is None else smoothing_exponents(group, seen, alpha)
    rows, weights, mean = seen.rows, group.weights, seen.channel_mean
    histogram = seen.histogram
    if exponents is not None:
        factors = np.ldexp(np.float32(1), exponents).astype(np.float32)
        rows, weights = rows / factors, tuple(weight * factors[:, None] for weight in weights)
        mean = mean / factors
        # The whole distribution is known only without smoothing; the kept rows represent it, except for its largest
        # magnitude, which is known by channel.
        histogram = Histogram()
        histogram.add(np.ascontiguousarray(rows), float((seen.channel_max / factors).max()))
    amax = find_range(histogram, case.method, precision)
    percent = find_reach(group, weights, np.square(rows).mean(axis=0)) if clip else 100
    values = [weight.values for weight in quantize_weights(group, precision, weights, percent)]
    rounded = quantize_input(rows, amax, precision)
    wrong = [rounded @ value - out for value, out in zip(values, case.exact, strict=True)]
    divided = None if exponents is None else tuple(map(int, exponents))
    error = _relative_error(wrong, case.exact)
    found = LayerRange(amax, seen.histogram.largest, divided, alpha, error, percent=percent)
    if group.biased:
        shift = (seen.channel_mean @ group.weights[0] - mean @ values[0]).astype(np.float32)
        corrected = _relative_error([wrong[0] + shift], case.exact)
        if corrected < error:
            # As text a float32 takes nine digits at most, and comes back as it was.
            return replace(found, error=corrected, shift=tuple(float(str(value)) for value in shift))
    return found


def find_reach(group: LinearGroup, weights: Sequence[Float32], power: Float32) -> int:
    """Return the percentage of the largest weight that INT8 codes should span, by the error of the output.

    Args:
        group: the layer.
        weights: its weights, smoothed, float32 (in, out) of each Linear.
        power: mean square of each channel of the smoothed input, float32 (in,).
    """

    def error(percent: int) -> float:
        quantized = quantize_weights(group, Precision.INT8, weights, percent)
        pairs = zip(quantized, weights, strict=True)
        return sum(float((power @ np.square(q.values - weight)).sum()) for q, weight in pairs)

    return min(REACHES, key=error)


def _relative_error(wrong: list[Float32], exact: list[Float32]) -> float:
    wanted = sum(float(np.square(out).sum()) for out in exact)
    return sum(float(np.square(difference).sum()) for difference in wrong) / wanted if wanted else 0.0

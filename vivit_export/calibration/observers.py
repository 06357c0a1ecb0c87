"""Histograms of a tensor's values, and the ranges that follow from them.

Values are counted by the upper 16 bits of their float32 pattern: sign, exponent and 7 bits of the
mantissa, which is truncated bfloat16. The bins of such a histogram are at most 1/128 of the value wide and
cover every float32 from the start. The histogram therefore never needs widening, rescaling or a second
pass: counts of clips add up exactly, in any order, and NaN and infinity have bins of their own. It takes
512 KiB per tensor for any number of clips. The largest magnitude is stored exactly in addition.

All ranges are symmetric: [-amax, amax]. TensorRT's INT8 has no zero point, and FP8 does not need one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vivit_export.precision import Precision

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_PATTERNS = 1 << 16
_MAGNITUDES = 1 << 15
_INFINITY = 0x7F80  # and above: NaN
_BLOCK = 1 << 18  # values counted at a time: np.bincount makes 64-bit integers of them
_LINEAR_BINS, _KL_LEVELS = 2048, 128
_CANDIDATES = 128  # thresholds tried, from 1/128 of the largest magnitude to all of it


@dataclass
class Histogram:
    """Counts of one tensor's magnitudes.

    Attributes:
        counts: int64 (32768,), by the upper 15 bits of the magnitude's float32 pattern.
        largest: largest finite magnitude, exact.
    """

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_MAGNITUDES, np.int64))
    largest: float = 0.0

    def add(self, values: Float32, largest: float | None = None) -> None:
        """Count values of any shape.

        Args:
            values: little-endian and C-contiguous; not modified.
            largest: their largest magnitude, if the caller knows it.
        """
        patterns = values.reshape(-1).view("<u2")[1::2]
        signed = np.zeros(_PATTERNS, np.int64)
        for start in range(0, patterns.size, _BLOCK):
            signed += np.bincount(patterns[start : start + _BLOCK], minlength=_PATTERNS)
        self.counts += signed[:_MAGNITUDES] + signed[_MAGNITUDES:]
        if values.size:
            self.largest = max(self.largest, float(np.abs(values).max()) if largest is None else largest)

    @property
    def nonfinite(self) -> int:
        """Return how many values were NaN or infinite."""
        return int(self.counts[_INFINITY:].sum())

    def occupied(self) -> tuple[Float64, Float64, npt.NDArray[np.int64]]:
        """Return (lower edges, upper edges, counts) of the bins that hold finite values, ascending."""
        bins = np.flatnonzero(self.counts[:_INFINITY])
        low, high = (((bins + i).astype(np.uint32) << 16).view(np.float32).astype(np.float64) for i in (0, 1))
        return low, np.minimum(high, max(self.largest, 0.0)), self.counts[bins]


def joined(histograms: Sequence[Histogram]) -> Histogram:
    """Merge several histograms into one."""
    counts = np.sum([histogram.counts for histogram in histograms], axis=0)
    return Histogram(counts, max(histogram.largest for histogram in histograms))


def minmax(histogram: Histogram, _round: Callable[[Float64], Float64]) -> float:
    """Return the largest magnitude: nothing is clipped."""
    return histogram.largest


def percentile(histogram: Histogram, _round: Callable[[Float64], Float64], share: float = 0.9999) -> float:
    """Return the magnitude that 99.99 % of the values do not exceed, interpolated inside its bin."""
    low, high, counts = histogram.occupied()
    if not len(counts):
        return 0.0
    cumulated = np.cumsum(counts)
    wanted = share * cumulated[-1]
    i = int(np.searchsorted(cumulated, wanted))
    before = cumulated[i] - counts[i]
    return float(low[i] + (high[i] - low[i]) * (wanted - before) / counts[i])


def mse(histogram: Histogram, rounded: Callable[[Float64], Float64]) -> float:
    """Return the range with the least mean squared error from clipping and rounding together.

    Each bin is represented by its center. A bin is at most 1/128 wide, narrower than a step of INT8
    everywhere except at the very top.
    """
    low, high, counts = histogram.occupied()
    if not len(counts):
        return 0.0
    centers = (low + high) / 2
    candidates = histogram.largest * np.arange(1, _CANDIDATES + 1) / _CANDIDATES

    def error(amax: float) -> float:
        return float(counts @ np.square(rounded(centers / amax) * amax - centers))

    return float(min(candidates[::-1], key=error))  # of equals the widest


def entropy(histogram: Histogram, _round: Callable[[Float64], Float64]) -> float:
    """Return the range that loses the least information, by the KL divergence.

    This is the procedure of TensorRT's former calibrator (S. Migacz, "8-bit inference with TensorRT", GTC
    2017). It compares the distribution clipped at a threshold, with everything beyond added to the last
    bin, with the same distribution in 128 levels, on 2048 linear bins. Each of our bins is spread over
    these evenly.
    """
    linear = _linear_counts(histogram)
    if not linear.any():
        return histogram.largest
    best, threshold = np.inf, _LINEAR_BINS
    for stop in range(_KL_LEVELS, _LINEAR_BINS + 1, _KL_LEVELS // 8):
        if not linear[:stop].any():
            continue  # all values lie beyond
        reference = linear[:stop].copy()
        reference[-1] += linear[stop:].sum()
        divergence = _kl(reference, _in_levels(linear[:stop]))
        if divergence <= best:
            best, threshold = divergence, stop
    return histogram.largest * threshold / _LINEAR_BINS


def _linear_counts(histogram: Histogram) -> Float64:
    low, high, counts = histogram.occupied()
    keep = high > 0
    low, high, counts = low[keep], high[keep], counts[keep]
    edges = np.linspace(0, histogram.largest, _LINEAR_BINS + 1)
    # The cumulated count is linear inside a bin: its differences at the new edges are the new counts.
    xs = np.concatenate([[0.0], np.stack([low, high], axis=1).ravel()])
    ends = np.cumsum(counts)
    ys = np.concatenate([[0.0], np.stack([ends - counts, ends], axis=1).ravel()])
    result: Float64 = np.diff(np.interp(edges, xs, ys))
    return result


def _in_levels(counts: Float64) -> Float64:
    """Return ``counts`` after quantization to 128 levels: the mean of each level's occupied bins, in those bins."""
    level = np.arange(len(counts)) * _KL_LEVELS // len(counts)
    occupied = counts > 0
    sums = np.bincount(level, counts, _KL_LEVELS)
    sizes = np.bincount(level, occupied, _KL_LEVELS)
    means = np.divide(sums, sizes, out=np.zeros(_KL_LEVELS), where=sizes > 0)
    return np.where(occupied, means[level], 0.0)


def _kl(reference: Float64, quantized: Float64) -> float:
    p, q = reference / reference.sum(), quantized / quantized.sum()
    both = (p > 0) & (q > 0)
    if (p[~both] > 0).any():  # only the heap of a clipped tail can stand where nothing stood before
        both |= p > 0
        q = np.maximum(q, 1e-12)
    return float((p[both] * np.log(p[both] / q[both])).sum())


METHODS: dict[str, Callable[[Histogram, Callable[[Float64], Float64]], float]] = {
    "minmax": minmax,
    "entropy": entropy,
    "percentile": percentile,
    "mse": mse,
}
"""Methods by name: each takes a histogram and the rounding of the target type; see `find_range`."""


def rounding(precision: Precision) -> Callable[[Float64], Float64]:
    """Return a function that rounds values / amax to codes, scaled to a largest code of 1, clipped to [-1, 1]."""
    dtype = precision.dtype
    largest, codes = float(dtype.max), dtype.numpy()

    def rounded(scaled: Float64) -> Float64:
        clipped = np.clip(scaled * largest, -largest, largest)
        return (clipped.astype(codes) if dtype.is_floating_point() else np.rint(clipped)).astype(np.float64) / largest

    return rounded


def find_range(histogram: Histogram, method: str, precision: Precision) -> float:
    """Return amax, or 0 for a tensor that is all zeros.

    If nearly all values are zero (after a ReLU), a method may ignore the others. Because these carry
    the information, the range is then their largest magnitude.

    Args:
        histogram: histogram of the tensor.
        method: one of `METHODS`.
        precision: type of the codes.
    """
    if not histogram.largest:
        return 0.0
    return METHODS[method](histogram, rounding(precision)) or histogram.largest

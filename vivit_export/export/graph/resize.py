"""Pillow's resize as graph ops, bit for bit.

Pillow resizes 8-bit images with fixed-point weights ``k``, 22 bits after the point, one axis at a
time, rounding to 8 bits in between (Pillow, src/libImaging/Resample.c)::

    out = clip8((2^21 + sum(p * k)) >> 22)

A GEMM in float32 cannot hold 22 + 8 bits, so each weight is split, k = 2^11 hi + lo with 0 <= lo < 2^11,
and one MatMul computes both sums. Every partial sum is an integer below 2^24, hence exact::

    out = clip(floor((sum(p * hi) + floor(sum(p * lo) / 2^11) + 2^10) / 2^11), 0, 255)

Pixels and halves fit 11 bits, so TF32 inputs and fp32 accumulation would be exact too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from vivit_export.errors import UsageError, option

PRECISION_BITS = 22
SPLIT_BITS = 11
MAX_TAPS = (1 << 24) // (255 * ((1 << SPLIT_BITS) - 1))
"""Longest filter whose lower sums stay exact: 32 taps, enough for bilinear shrinking by up to 15."""

Weights = npt.NDArray[np.int64]


def axis_weights(source: int, target: int, resample: int) -> Weights:
    """Return the fixed-point weights of one pass.

    Args:
        source: pixels along the axis.
        target: pixels after the pass.
        resample: Pillow filter number, 0 to 5.

    Returns:
        int64 (target, source); a row sums to about 2^22.
    """
    weights = np.zeros((target, source), np.int64)
    scale = source / target
    if resample == 0:
        # Nearest takes the pixel under the center; Pillow finds centers by adding up, rounding and all.
        centers = np.cumsum([scale * 0.5, *[scale] * (target - 1)])
        weights[np.arange(target), np.minimum(centers.astype(np.int64), source - 1)] = 1 << PRECISION_BITS
        return weights
    function, support = _FILTERS[resample]
    stretch = max(1.0, scale)
    reach = support * stretch
    for i in range(target):
        center = (i + 0.5) * scale
        low, high = max(0, int(center - reach + 0.5)), min(source, int(center + reach + 0.5))
        taps = [function((x - center + 0.5) * (1.0 / stretch)) for x in range(low, high)]
        total = 0.0
        for tap in taps:  # not sum(), which compensates since Python 3.12: the rounding is part of the result
            total += tap
        for x, tap in enumerate(taps, low):
            share = tap / total if total else tap
            weights[i, x] = int(share * (1 << PRECISION_BITS) + math.copysign(0.5, share))
    return weights


def split_weights(weights: Weights) -> npt.NDArray[np.float32]:
    """Return the halves of the weights, stacked: float32 (2 * target, source), high rows first.

    Raises:
        UsageError: the filter is too long for the sums to stay exact.
    """
    taps = int((weights != 0).sum(axis=1).max(initial=0))
    if taps > MAX_TAPS:
        raise UsageError(
            f"{option('frame_size')} shrinks by too much: {taps} pixels go into one where {MAX_TAPS} stay exact; "
            f"use {option('input_mode', 'crops')} and resize before the graph"
        )
    high = weights >> SPLIT_BITS
    low = weights - (high << SPLIT_BITS)
    return np.concatenate([high, low]).astype(np.float32)


def _lanczos(x: float) -> float:
    def sinc(v: float) -> float:
        return 1.0 if v == 0 else math.sin(v * math.pi) / (v * math.pi)

    return sinc(x) * sinc(x / 3) if -3 <= x < 3 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _hamming(x: float) -> float:
    x = abs(x) * math.pi
    if x == 0:
        return 1.0
    # Pillow's two constants are C floats.
    a, b = float(np.float32(0.54)), float(np.float32(0.46))
    return math.sin(x) / x * (a + b * math.cos(x)) if x < math.pi else 0.0


_FILTERS: dict[int, tuple[Callable[[float], float], float]] = {
    1: (_lanczos, 3.0),
    2: (_bilinear, 1.0),
    3: (_bicubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}

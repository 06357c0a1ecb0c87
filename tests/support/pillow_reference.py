"""Pillow's 8-bit resize written out in NumPy integers: an independent reference for either pass order."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

BITS = 22  # Pillow's PRECISION_BITS: 32 - 8 bits of pixel - 2 of headroom


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
    x = abs(x)
    if x == 0:
        return 1.0
    x *= math.pi
    return math.sin(x) / x * (float(np.float32(0.54)) + float(np.float32(0.46)) * math.cos(x)) if x < math.pi else 0.0


FILTERS: dict[int, tuple[Callable[[float], float], float]] = {
    1: (_lanczos, 3.0),
    2: (_bilinear, 1.0),
    3: (_bicubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}


def weights(source: int, target: int, resample: int) -> npt.NDArray[np.int64]:
    """Fixed-point weights (target, source) of one pass."""
    function, support = FILTERS[resample]
    scale = source / target
    stretch = max(1.0, scale)
    support *= stretch
    out = np.zeros((target, source), np.int64)
    for i in range(target):
        center = (i + 0.5) * scale
        low, high = max(0, int(center - support + 0.5)), min(source, int(center + support + 0.5))
        taps = [function((x - center + 0.5) * (1.0 / stretch)) for x in range(low, high)]
        total = 0.0
        for tap in taps:  # in this order: the sum's rounding is part of the result
            total += tap
        for x, tap in enumerate(taps, low):
            tap = tap / total if total else tap
            out[i, x] = int(tap * (1 << BITS) + (0.5 if tap >= 0 else -0.5))
    return out


def _one_pass(image: npt.NDArray[np.uint8], axis: int, target: int, resample: int) -> npt.NDArray[np.uint8]:
    if image.shape[axis] == target:
        return image
    sums = np.tensordot(weights(image.shape[axis], target, resample), image.astype(np.int64), axes=(1, axis))
    rounded = np.clip((sums + (1 << (BITS - 1))) >> BITS, 0, 255)
    return np.moveaxis(rounded, 0, axis).astype(np.uint8)


def resize(
    image: npt.NDArray[np.uint8], height: int, width: int, resample: int, vertical_first: bool
) -> npt.NDArray[np.uint8]:
    """Resize (h, w, 3), rounding to 8 bits between the passes."""
    steps = [(1, width), (0, height)]
    for axis, target in reversed(steps) if vertical_first else steps:
        image = _one_pass(image, axis, target, resample)
    return image

"""Clips made of random numbers that pass for pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def blurred(rng: np.random.Generator, count: int, shape: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """Random clips (count, T, H, W, 3) of pixels two high and two wide: a calibration refuses plain noise."""
    frames, height, width, channels = shape
    small = rng.integers(0, 256, (count, frames, height // 2, width // 2, channels), dtype=np.uint8)
    return small.repeat(2, axis=2).repeat(2, axis=3)

"""What Pillow itself says about its resize, for either pass order, whatever order the installed one has.

Resizing along one axis alone leaves Pillow no order to choose, so `resize` asks it for one axis after the other; and
one bright pixel at a time shows its weights, which the modes of 32 bits let through where 8 bits would round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

FILTERS = (1, 2, 3, 4, 5)  # all but nearest, which takes pixels and weighs none
WITHOUT_LOBES = (2, 4, 5)  # filters whose weights are never negative
BITS = 22  # after the point of a weight: 32 bits, less 8 of pixel and 2 of headroom


def resize(
    image: npt.NDArray[np.uint8], height: int, width: int, resample: int, vertical_first: bool
) -> npt.NDArray[np.uint8]:
    """Resize (h, w, 3) in two passes, each rounded to 8 bits."""
    passes = [(image.shape[1], height), (width, height)] if vertical_first else [(width, len(image)), (width, height)]
    resized = Image.fromarray(image)
    for size in passes:
        resized = resized.resize(size, Image.Resampling(resample))
    return np.asarray(resized)


def resize_unrounded(image: npt.NDArray[np.uint8], height: int, width: int, resample: int) -> npt.NDArray[np.float32]:
    """Resize (h, w, 3) channel by channel in float32, so that no pass rounds to 8 bits or clips."""
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(c.resize((width, height), Image.Resampling(resample))) for c in channels], -1)


def weights(source: int, target: int, resample: int) -> npt.NDArray[np.int64]:
    """Fixed-point weights (target, source) of one pass: those of mode "I", rounded as 8-bit images round them."""
    shown = _pass(np.eye(source, dtype=np.int32) << 30, target, resample).T / (1 << (30 - BITS))
    rounded: npt.NDArray[np.int64] = np.trunc(shown + np.copysign(0.5, shown)).astype(np.int64)
    middle = np.floor(shown) + 0.5
    close = np.abs(shown - middle) < 1 / 128  # to a half, of which 30 bits cannot say which way it goes
    for i, x in np.argwhere(close):
        rounded[i, x] = np.floor(middle[i, x]) + _exceeds(middle[i, x] / (1 << BITS), source, target, resample, i, x)
    return rounded


def _exceeds(value: float, source: int, target: int, resample: int, i: int, x: int) -> bool:
    """Whether weight ``x`` of output pixel ``i`` is larger than ``value``, which has few bits.

    As the weights add up to one, a row of -value with 1 - value at ``x`` becomes weight - value, summed in double.
    """
    row = np.full((1, source), -value, np.float32)
    row[0, x] = 1 - value
    return bool(_pass(row, target, resample)[0, i] > 0)


def _pass(rows: npt.NDArray[Any], target: int, resample: int) -> npt.NDArray[Any]:
    """Resize every row by itself, in the mode of the array's type."""
    return np.asarray(Image.fromarray(rows).resize((target, len(rows)), Image.Resampling(resample)))

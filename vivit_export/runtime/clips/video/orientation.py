"""The eight orientations of a picture, from the display matrix of its container.

A display matrix has 3 x 3 fixed-point numbers, row by row ``a b u, c d v, x y w``. It shows the stored pixel (column p,
row q) at column ``a p + c q`` and row ``b p + d q``, up to a shift. ffmpeg turns and mirrors by it, and so does this
module, by the same rule (FFmpeg 8, fftools/ffmpeg_filter.c, and av_display_rotation_get): the angle of the image of a
row, rounded to a degree, decides between the axes, and signs decide what is mirrored. A matrix that squeezes an axis to
nothing, as one of zeros does, has no angle and turns nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture becomes upright: rows and columns are swapped first, then mirrored.

    Attributes:
        transpose: rows become columns.
        flip_columns: left and right are swapped.
        flip_rows: top and bottom are swapped.
    """

    transpose: bool = False
    flip_columns: bool = False
    flip_rows: bool = False

    def apply(self, image: UInt8) -> UInt8:
        """Return a view of uint8 (h, w, 3), upright."""
        turned = image.swapaxes(0, 1) if self.transpose else image
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def angle_of(matrix: Sequence[int]) -> int | None:
    """Return by how many degrees a matrix turns a row of pixels, clockwise, in [0, 360), or None if it has no angle.

    Args:
        matrix: nine numbers; see the module.
    """
    a, b, _, c, d = matrix[:5]
    width, height = math.hypot(a, c), math.hypot(b, d)
    if not width or not height:
        return None
    return round(math.degrees(math.atan2(b / height, a / width))) % 360


def orientation_of(matrix: Sequence[int]) -> Orientation | None:
    """Return how a matrix shows a picture, or None if it turns it by another angle than quarter turns.

    Args:
        matrix: nine numbers; see the module.
    """
    angle, (c, d) = angle_of(matrix), matrix[3:5]
    if angle is None:
        return Orientation()
    if angle % 90:
        return None
    if angle % 180:
        # Clockwise, the top row becomes the right column, unless the picture is mirrored too.
        return Orientation(True, c <= 0 if angle == 90 else c < 0, angle == 270)
    return Orientation(False, angle == 180, d < 0)

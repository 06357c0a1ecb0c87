"""Where the pixels of a crop come from: sizes and ranges along each axis, without any pixels.

Resize and crop treat rows and columns independently, so one `Axis` describes each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vivit_export.contract import Preprocess

# Reach of each Pillow filter, by number, in units of max(1, scale) source pixels.
_REACH = (0.5, 3.0, 1.0, 2.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a frame on its way to the crop.

    ::

        source  |--------------------------------|            pixels of the frame
        resized |----------------|                            after the resize
        kept       [start, stop)                              the part of resized inside the crop
        length  |0000|-----------|                            the crop: pad zeros, then kept

    ``pad`` is zero unless the resized axis is shorter than the crop.
    """

    source: int
    resized: int
    start: int
    stop: int
    pad: int
    length: int

    @property
    def kept(self) -> int:
        """Length of the kept part, in pixels."""
        return self.stop - self.start

    def needed(self, resample: int) -> tuple[int, int]:
        """Return a range of source pixels that covers everything the kept pixels are computed from."""
        scale = self.source / self.resized
        reach = _REACH[resample] * max(1.0, scale)
        low = math.floor((self.start + 0.5) * scale - reach) - 1
        high = math.ceil((self.stop - 0.5) * scale + reach) + 1
        return max(0, low), min(self.source, high)


def crop_axis(source: int, resized: int, length: int, position: float) -> Axis:
    """Lay the crop over a resized axis.

    Args:
        source: pixels of the frame.
        resized: pixels after the resize.
        length: pixels of the crop.
        position: 0.0 start, 0.5 center, 1.0 end. As in transformers, a centered crop drops an odd extra pixel
            at the end, and an odd missing pixel is padded in front.
    """
    if resized >= length:
        start = int((resized - length) * position)
        return Axis(source, resized, start, start + length, 0, length)
    return Axis(source, resized, 0, resized, (length - resized + 1) // 2, length)


def resized_size(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    """Return (height, width) after the resize, rounded as transformers does."""
    if preprocess.size is not None:
        return preprocess.size
    assert preprocess.shortest_edge is not None  # Preprocess has exactly one of the two
    short = preprocess.shortest_edge
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)

"""Make upright RGB of a decoded frame.

Color: each frame becomes 8-bit RGB in swscale with PyAV's defaults. Matrix and range are those the
stream declares. If it declares none, they are BT.601 and limited range, whatever the size. Halved chroma is
repeated in 8-bit sources, and interpolated (bilinear) in deeper ones, which are rounded to 8 bits.
OpenCV, which also uses FFmpeg, produces the same bits except for deep sources with halved chroma, which
it interpolates by a cubic.
Pixels are assumed to be square. Nothing is resized here (see `vivit_export.runtime.clips.pixels.preprocess`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from vivit_export.errors import ClipError
from vivit_export.runtime.clips.video.orientation import Orientation, angle_of, orientation_of

UInt8 = npt.NDArray[np.uint8]
T = TypeVar("T")

# One frame is too little to share among threads: with PyAV's default of all cores the conversion took
# seven times as long.
_TO_RGB: dict[str, Any] = {"format": "rgb24", "threads": 1}
# Those of the standard's MatrixCoefficients (ISO/IEC 23091-2) that swscale, and so ffmpeg, does not convert.
# Repeated in detail/libav/picture.hpp of the C++ library; a test compares them.
_NO_CONVERSION = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "derived from the primaries, luminance not constant",
    13: "derived from the primaries, constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_UNKNOWN_SIDE_DATA = range(len(SideDataType), 64)  # its list has no gaps


class ToUprightRgb:
    """Converts the frames of one video, which have one size, by their color matrix, and turns them upright.

    Args:
        name: what messages call the video.
    """

    def __init__(self, name: object) -> None:
        self._name = name
        self._reformatter = VideoReformatter()  # keeps its tables from one frame to the next
        self._one_size = OneSize(name)
        # By angle: a frame whose matrix has been read is part of a circle, and so stays in memory for a while. That a
        # video is mirrored from some frame on, but not turned, is not expected.
        self._orientations: dict[int, Orientation] = {}

    def __call__(self, frame: av.VideoFrame) -> UInt8:
        """Return uint8 (h, w, 3), possibly a view.

        Raises:
            ClipError: the color matrix has no conversion, the frame is turned by something else than quarter turns, or
                it has another size than the first.
            av.error.FFmpegError: it cannot be converted.
        """
        matrix = frame.colorspace
        if matrix in _NO_CONVERSION and not frame.format.is_rgb:
            raise ClipError(
                f"{self._name} declares the color matrix {matrix} ({_NO_CONVERSION[matrix]}), from which there is no "
                "conversion to RGB; convert the video to BT.709"
            )
        if frame.rotation not in self._orientations:
            self._orientations[frame.rotation] = _orientation(frame, self._name)
        rgb = self._reformatter.reformat(frame, **_TO_RGB)
        plane = rgb.planes[0]  # its rows may be padded
        image = np.ndarray((rgb.height, rgb.width, 3), np.uint8, memoryview(plane), strides=(plane.line_size, 3, 1))
        upright = self._orientations[frame.rotation].apply(image)
        self._one_size.require(upright.shape)
        return upright


class SizedConverter(Generic[T]):
    """Converts the frames of one video by `ToUprightRgb` and more, and says how large they were.

    Args:
        name: what messages call the video.
        convert: receives uint8 (h, w, 3).
    """

    def __init__(self, name: object, convert: Callable[[UInt8], T]) -> None:
        self._to_rgb, self._convert = ToUprightRgb(name), convert

    def __call__(self, frame: av.VideoFrame) -> tuple[tuple[int, ...], T]:
        """Return (h, w, 3), and what was made of the frame; raise as `ToUprightRgb` does."""
        image = self._to_rgb(frame)
        return image.shape, self._convert(image)


class OneSize:
    """Requires that frames have the size of the first.

    Args:
        name: what messages call the video.
    """

    def __init__(self, name: object) -> None:
        self._name = name
        self._shape: tuple[int, ...] = ()

    def require(self, shape: tuple[int, ...]) -> None:
        """Refuse another size.

        Args:
            shape: of a frame, (h, w, 3).

        Raises:
            ClipError: it is another one than that of the first frame.
        """
        first = self._shape = self._shape or shape
        if shape != first:
            raise ClipError(
                f"{self._name} changes its frame size from {first[1]}x{first[0]} to {shape[1]}x{shape[0]} "
                "(width x height); convert it to one size"
            )


def _orientation(frame: av.VideoFrame, name: object) -> Orientation:
    data = next((d for d in _side_data(frame) if d.type is SideDataType.DISPLAYMATRIX), None)
    if data is None:
        return Orientation()
    matrix = struct.unpack("=9i", bytes(data))
    orientation = orientation_of(matrix)
    if orientation is None:
        raise ClipError(f"{name} is turned by {angle_of(matrix)} degrees clockwise; only quarter turns are supported")
    return orientation


def _side_data(frame: av.VideoFrame) -> list[SideData]:
    try:
        container: Any = frame.side_data
    except ValueError:  # PyAV fails on kinds that are newer than its list, as EXIF and the views of stereo video are
        container = _without_unknown(frame).side_data
    return list(container)


def _without_unknown(frame: av.VideoFrame) -> av.VideoFrame:
    """Pass a frame through filters that take off the side data that PyAV does not know."""
    graph = Graph()
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)]
    nodes += [graph.add("sidedata", f"mode=delete:type={kind}") for kind in _UNKNOWN_SIDE_DATA]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    passed = graph.pull()
    assert isinstance(passed, av.VideoFrame)
    return passed

"""Make test videos whose frames carry their own number as brightness."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

STEP, BLACK = 5, 24


def make_video(
    path: Path,
    num_frames: int = 40,
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    variable_rate: bool = False,
    marked: bool = False,
    audio_seconds: float = 0,
) -> Path:
    """Write ``num_frames`` grey frames of ``size`` (width, height) at 25 fps.

    Args:
        marked: the first row's left half is white, so that turns and flips show.
    """
    width, height = size
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.options = codec_options or {}
        if variable_rate:
            stream.codec_context.time_base = Fraction(1, 1000)
        audio: Any = container.add_stream("aac", rate=16000) if audio_seconds else None
        for i in range(num_frames):
            image = np.full((height, width, 3), BLACK + STEP * i, np.uint8)
            if marked:
                image[: height // 2, : width // 2] = 250
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
            if variable_rate:
                frame.pts, frame.time_base = i * 40 + (i % 3) * 13, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            _add_silence(container, audio, audio_seconds)
    return path


def make_audio(path: Path, seconds: float = 1.0) -> Path:
    with av.open(str(path), "w") as container:
        _add_silence(container, container.add_stream("aac", rate=16000), seconds)
    return path


def _add_silence(container: Any, stream: Any, seconds: float) -> None:
    for _ in range(round(seconds * 16000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def frame_numbers(clip: np.ndarray) -> list[int]:
    """The number of each frame, read from its bottom right pixels; fails if none is near."""
    level = (clip[:, -4:, -4:].mean((1, 2, 3)) - BLACK) / STEP
    assert np.abs(level - level.round()).max() < 0.45, level
    return [int(n) for n in level.round()]


def patch_box(path: Path, box: bytes, offset: int, form: str, *values: int) -> None:
    """Overwrite big-endian fields of the first MP4 box of that name, ``offset`` bytes after its name."""
    data = bytearray(path.read_bytes())
    struct.pack_into(">" + form, data, data.index(box) + len(box) + offset, *values)
    path.write_bytes(data)


def remux(source: Path, target: Path, edit: Any) -> Path:
    """Copy the video packets; ``edit(index, data)`` returns new bytes or None to drop the packet."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for index, packet in enumerate(p for p in old.demux(video=0) if p.size):
            data = edit(index, bytes(packet))
            if data is None:
                continue
            copy = av.Packet(data)
            copy.pts, copy.dts, copy.duration, copy.time_base = (
                packet.pts,
                packet.dts,
                packet.duration,
                packet.time_base,
            )
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            new.mux(copy)
    return target

"""Make test videos whose frames carry their own number as brightness."""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw
from priority import keeping_priority

from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.runtime.clips.video.index import VideoIndex
from vivit_export.runtime.clips.video.seek import seek_frames

STEP, BLACK = 5, 24
SEGMENT, DURATION = b"\x18\x53\x80\x67", b"\x44\x89\x88"  # elements of Matroska


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
    gap: int = 0,
    marked: bool = False,
    audio_seconds: float = 0,
) -> Path:
    """Write ``num_frames`` gray frames of ``size`` (width, height) at 25 fps.

    Args:
        gap: how many frames are missing in the middle.
        marked: the first row's left half is white, so that turns and flips show.
    """
    width, height = size
    with keeping_priority(), av.open(str(path), "w", options=container_options or {}) as container:
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
            elif gap:
                frame.pts, frame.time_base = i + gap * (2 * i >= num_frames), Fraction(1, 25)
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


def make_vp8_with_hidden_frames(folder: Path) -> tuple[Path, list[int]]:
    """Make a video of 40 frames, of which 5, 6 and 30 are not shown; return it and the numbers of the others."""
    hidden = (5, 6, 30)
    source = make_video(folder / "all.webm", codec="libvpx", codec_options={"b": "2M", "qmax": "8"})

    def hide(index: int, data: bytes) -> bytes:
        return bytes([data[0] & ~0x10]) + data[1:] if index in hidden else data  # clears show_frame

    return remux(source, folder / "hidden.webm", hide), [n for n in range(40) if n not in hidden]


def make_picture_video(
    path: Path,
    pictures: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    colorspace: int | None = None,
    codec_options: dict[str, str] | None = None,
) -> Path:
    """Write uint8 RGB pictures of one size at 25 fps; ``colorspace`` is FFmpeg's number (1: BT.709)."""
    with keeping_priority(), av.open(str(path), "w") as container:
        stream: Any = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream(codec, rate=25)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt, stream.options = pix_fmt, codec_options or {}
                if colorspace is not None:
                    stream.codec_context.colorspace = colorspace
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def moving_picture(number: int, width: int, height: int) -> np.ndarray:
    """Slopes of all three colors that move, with the frame's number burnt in as text."""
    y, x = np.mgrid[:height, :width]
    red, green, blue = (x * 255 // width + 9 * number) % 256, y * 255 // height, ((x + y) * 2 + 5 * number) % 256
    image = Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8))
    ImageDraw.Draw(image).text((4, 4), f"{number:05d}", fill="white", stroke_width=2, stroke_fill="black", font_size=24)
    return np.asarray(image)


# Codecs whose second key frame is the 250th, where packets before one say nothing of the size of frames.
LATE_CODECS = {
    "libx264": {"g": "250", "keyint_min": "250", "sc_threshold": "0", "bf": "0"},
    "libx265": {"x265-params": "keyint=250:min-keyint=250:bframes=3:open-gop=1:log-level=none"},
    "mpeg2video": {"g": "250", "bf": "0", "sc_threshold": "1000000000"},
    "mpeg4": {"g": "250", "bf": "0", "sc_threshold": "1000000000"},
}


def make_late(
    folder: Path, size: tuple[int, int] = (64, 48), codec: str = "libx264", suffix: str = "ts"
) -> tuple[Path, Path]:
    """Make a video whose second key frame is the 250th of 300, and what is left of it without the first packet."""
    pictures = (moving_picture(number, *size) for number in range(300))
    options = LATE_CODECS[codec]
    whole = make_picture_video(folder / f"whole-{codec}.{suffix}", pictures, codec=codec, codec_options=options)
    return whole, remux(whole, folder / f"late-{codec}.{suffix}", lambda number, data: data if number else None)


def repeat_video(source: Path, target: Path, times: int) -> Path:
    """Join a video of one key frame and no reordering ``times`` times, without encoding again."""
    with av.open(str(source)) as old:
        packets = [p for p in old.demux(video=0) if p.size]
        with av.open(str(target), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for number in range(times * len(packets)):
                packet = packets[number % len(packets)]
                copy = av.Packet(bytes(packet))
                copy.duration, copy.time_base = packet.duration, packet.time_base
                copy.pts = copy.dts = number * (packet.duration or 1)
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                new.mux(copy)
    return target


def add_cover(path: Path) -> Path:
    """Put a picture into an M4A file as iTunes does."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")

    def box(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", 8 + len(data)) + name + data

    cover = box(b"covr", box(b"data", struct.pack(">II", 14, 0) + picture.getvalue()))
    kind = box(b"hdlr", b"\0" * 8 + b"mdirappl" + b"\0" * 9)
    added = box(b"udta", box(b"meta", b"\0" * 4 + kind + box(b"ilst", cover)))
    data = bytearray(path.read_bytes())
    at = data.index(b"moov") - 4
    (size,) = struct.unpack_from(">I", data, at)
    assert at + size == len(data)  # the last box, so that it can grow
    struct.pack_into(">I", data, at, size + len(added))
    path.write_bytes(data + added)
    return path


def make_recording(path: Path, *, endless: bool, seconds: float | None = None) -> Path:
    """Write WebM as a browser does, whose duration a tool has added afterwards."""
    make_video(path, codec="libvpx", codec_options={"b": "2M", "qmax": "8"})
    data = bytearray(path.read_bytes())
    if endless:
        at = data.index(SEGMENT) + 4
        assert data[at] == 1  # a length of eight bytes
        data[at + 1 : at + 8] = b"\xff" * 7
    if seconds is not None:
        struct.pack_into(">d", data, data.index(DURATION) + 3, seconds * 1000)
    path.write_bytes(data)
    return path


def contract(num_frames: int, clip: Clip | None = None, frame_size: tuple[int, int] | None = None) -> Contract:
    """The contract of a model that takes crops of 32x32, or whole frames of ``frame_size`` (height, width)."""
    clip, preprocess = clip or Clip(num_frames, 32, 32, (1, 16, 16)), Preprocess(shortest_edge=36, crop_size=(32, 32))
    tensor = Tensor("frames", "uint8", ("batch", num_frames, *(frame_size or (32, 32)), 3))
    return Contract(clip, preprocess, IO("frames" if frame_size else "crops", (tensor,), (), frame_size))


def with_frames(made: Contract, num_frames: int) -> Contract:
    """The contract of a model that takes clips of so many frames and is else the same."""
    (tensor,) = made.io.inputs
    batch, _, *frame = tensor.shape
    longer = dataclasses.replace(tensor, shape=(batch, num_frames, *frame))
    clip = dataclasses.replace(made.clip, num_frames=num_frames)
    return dataclasses.replace(made, clip=clip, io=dataclasses.replace(made.io, inputs=(longer,)))


# Display matrices (a, b, c, d): a stored pixel at (x, y) is shown at (a x + c y, b x + d y).
TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
ORIENTATIONS = {f"turned by {degrees}": numbers for degrees, numbers in TURNS.items()} | {
    "left is right": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
}


def set_matrix(path: Path, numbers: Sequence[float]) -> None:
    """Write a display matrix (a, b, c, d) into the track header of an MP4 file."""
    a, b, c, d = (round(65536 * v) for v in numbers)
    patch_box(path, b"tkhd", 40, "9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)


def shown_by(numbers: tuple[int, ...], stored: np.ndarray) -> np.ndarray:
    """What a display matrix (a, b, c, d) of ones and zeros shows of pictures (..., h, w, 3)."""
    a, b, c, d = numbers
    y, x = np.mgrid[: stored.shape[-3], : stored.shape[-2]]
    new_x, new_y = a * x + c * y, b * x + d * y
    shown = np.empty((*stored.shape[:-3], np.ptp(new_y) + 1, np.ptp(new_x) + 1, 3), np.uint8)
    shown[..., new_y - new_y.min(), new_x - new_x.min(), :] = stored
    return shown


def seek_pictures(index: VideoIndex, wanted: Sequence[int], threads: int = 0) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames of a video as the decoder gives them."""
    return seek_frames(index, wanted, lambda: lambda frame: frame, 2 * index.pixels, threads)

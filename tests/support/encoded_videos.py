"""A zoo of small videos: codecs, containers, orders of pictures and of times, each made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from priority import keeping_priority

NUM_FRAMES = 48
_SIZE = (80, 64)  # width, height
_MUST_BE_WHOLE = ("avi", "flv", "ts")


@dataclass(frozen=True)
class Encoded:
    """How a video is made.

    Attributes:
        name: file name.
        codec: FFmpeg's name of the encoder.
        options: of the encoder.
        muxer: options of the container.
        pix_fmt: form of the pixels.
        times: distance of the frames: ``even``; ``variable``; ``late`` begins at three seconds.
        group: frames from one key frame to the next, for encoders without an option.
        b_frames: for encoders without an option.
        seeks: whether some frames of it can be read without decoding it in full.
    """

    name: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    times: str = "even"
    group: int | None = None
    b_frames: int | None = None
    seeks: bool = True

    def make(self, folder: Path) -> Path:
        """Encode it, if it is not there yet."""
        path = folder / self.name
        if not path.exists():
            part = folder / f"part-{self.name}"
            with keeping_priority():
                _write(self, part)
            part.rename(path)
        return path


def pictures(count: int) -> Iterator[np.ndarray]:
    """Slopes that move, and a square that jumps: no two pictures are alike."""
    width, height = _SIZE
    y, x = np.mgrid[:height, :width]
    for i in range(count):
        image = np.stack([(x * 3 + 9 * i) % 256, (y * 5 + 3 * i) % 256, ((x + y) * 2 + 5 * i) % 256], -1)
        at = 7 * i % (width - 12)
        image[height // 4 : height // 2, at : at + 12] = (255 * (i % 2), 40, 200)
        yield image.astype(np.uint8)


def decode_all(path: Path) -> list[np.ndarray]:
    """All frames, by PyAV alone, without seeking."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _write(video: Encoded, path: Path) -> None:
    with av.open(str(path), "w", options=video.muxer) as container:
        stream: Any = container.add_stream(video.codec, rate=25)
        stream.width, stream.height = _SIZE
        stream.pix_fmt, stream.options = video.pix_fmt, video.options
        if video.group is not None:
            stream.codec_context.gop_size = video.group
        if video.b_frames is not None:
            stream.codec_context.max_b_frames = video.b_frames
        # MPEG-2 knows only the times of its frame rate.
        tick = Fraction(1, 25) if video.times == "even" else Fraction(1, 1000)
        stream.codec_context.time_base = tick
        for i, image in enumerate(pictures(NUM_FRAMES)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = _time(video.times, i), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _time(times: str, i: int) -> int:
    if times == "variable":
        return i * 40 + i % 3 * 13 + (200 if i > 30 else 0)
    return i * 40 + 3000 if times == "late" else i


_X264 = {
    "short": {"g": "12", "bf": "2"},
    "pyramid": {"g": "12", "bf": "3", "x264-params": "b-pyramid=normal"},
    "open": {"x264-params": "open-gop=1:keyint=10:bframes=3"},
    "plain": {"g": "15", "bf": "0"},
    "intra": {"g": "1"},
    "single": {"g": "250"},
    "scenes": {"g": "30", "x264-params": "scenecut=80:bframes=8"},
    "live": {"tune": "zerolatency", "g": "9"},
}
_X265 = {
    "open": "keyint=12:min-keyint=12:bframes=3",
    "closed": "keyint=12:min-keyint=12:bframes=3:open-gop=0",
    "plain": "keyint=15:bframes=0",
    "pyramid": "keyint=20:bframes=8:b-pyramid=1",
}


def _zoo() -> Iterator[Encoded]:
    for kind in ("mp4", "mov", "mkv", *_MUST_BE_WHOLE):
        seeks = kind not in _MUST_BE_WHOLE
        for name, options in _X264.items():
            yield Encoded(f"h264-{name}.{kind}", "libx264", options, seeks=seeks)
        yield Encoded(f"h264-10bit.{kind}", "libx264", _X264["short"], pix_fmt="yuv420p10le", seeks=seeks)
        # Its points of recovery are marked as key frames; what is decoded from them shows only later.
        yield Encoded(f"h264-refresh.{kind}", "libx264", {"g": "20", "x264-params": "intra-refresh=1"}, seeks=False)
        yield Encoded(f"h264-fields.{kind}", "libx264", {"g": "12", "x264-params": "interlaced=1"}, seeks=False)
        if kind != "flv":
            for b_frames in (0, 2):
                yield Encoded(f"mpeg4-{b_frames}.{kind}", "mpeg4", group=12, b_frames=b_frames, seeks=seeks)
                yield Encoded(f"mpeg2-{b_frames}.{kind}", "mpeg2video", group=12, b_frames=b_frames, seeks=seeks)
        if kind not in ("flv", "ts"):
            yield Encoded(f"mjpeg.{kind}", "mjpeg", pix_fmt="yuvj420p", seeks=seeks)
    for kind in ("mp4", "mov", "mkv", "ts"):
        for name, text in _X265.items():
            options = {"x265-params": f"{text}:log-level=none"}
            yield Encoded(f"hevc-{name}.{kind}", "libx265", options, seeks=kind != "ts")
        deep = {"x265-params": f"{_X265['open']}:log-level=none"}
        yield Encoded(f"hevc-10bit.{kind}", "libx265", deep, pix_fmt="yuv420p10le", seeks=kind != "ts")
    for kind in ("mp4", "mov", "mkv"):
        fragments = {} if kind == "mkv" else {"movflags": "frag_keyframe+empty_moov"}
        negative = {} if kind == "mkv" else {"movflags": "negative_cts_offsets"}
        no_edits = {} if kind == "mkv" else {"use_editlist": "0"}
        short = _X264["short"]
        yield Encoded(f"h264-variable.{kind}", "libx264", short, times="variable")
        yield Encoded(f"h264-late.{kind}", "libx264", short, times="late")
        yield Encoded(f"h264-fragments.{kind}", "libx264", short, fragments)
        yield Encoded(f"h264-negative.{kind}", "libx264", short, negative)
        yield Encoded(f"h264-no-edits.{kind}", "libx264", short, no_edits)
        yield Encoded(f"hevc-variable.{kind}", "libx265", {"x265-params": "keyint=12:log-level=none"}, times="variable")
    for group in ("8", "30"):
        hidden = {"g": group, "auto-alt-ref": "1", "lag-in-frames": "16", "b": "200k"}
        for kind in ("webm", "mkv", "mp4"):
            yield Encoded(f"vp9-{group}.{kind}", "libvpx-vp9", hidden)
            yield Encoded(f"av1-{group}.{kind}", "libsvtav1", {"g": group, "preset": "12"})
        for kind in ("webm", "mkv"):
            yield Encoded(f"vp8-{group}.{kind}", "libvpx", hidden, seeks=False)
    for kind in ("mov", "mkv"):
        yield Encoded(f"prores.{kind}", "prores_ks", pix_fmt="yuv422p10le")
        yield Encoded(f"h264-422.{kind}", "libx264", _X264["pyramid"], pix_fmt="yuv422p")
        yield Encoded(f"h264-444.{kind}", "libx264", _X264["open"], pix_fmt="yuv444p")
        yield Encoded(f"hevc-444.{kind}", "libx265", {"x265-params": "keyint=9:log-level=none"}, pix_fmt="yuv444p")
    yield Encoded("av1-10bit.mp4", "libsvtav1", {"g": "12", "preset": "12"}, pix_fmt="yuv420p10le")
    yield Encoded("ffv1.mkv", "ffv1", {"g": "5"})


ZOO = tuple(_zoo())

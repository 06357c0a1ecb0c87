"""Read a clip from a video file. The only module that imports PyAV.

Frames are decoded in full and in presentation order, never sought: seeking is wrong on many
streams, and the frame count that a container states is often absent or off. The exact count comes
from the packets, and is checked against what the decoder really gives.

    video   0 1 2 3 4 5 6 7 8 9          N = 10 frames
    clip    ^   ^     ^   ^              T = 4: frame i * N // T = 0, 2, 5, 7

Colour: each frame is converted to 8-bit RGB by FFmpeg's swscale with PyAV's defaults, which honour
the colour matrix and range that the stream declares. 8-bit sources agree bit by bit with other
FFmpeg-based readers; 10-bit ones are rounded to 8 bits, and other readers may round otherwise.
Pixels are taken as square. Nothing is resized here (`vivit_export.runtime.preprocess`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from vivit_export.contract import Contract
from vivit_export.errors import ClipError

UInt8 = npt.NDArray[np.uint8]

_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
# Containers whose header states the duration; the others' is an estimate from the file itself.
_STATES_DURATION = ("matroska", "mov")
_DURATION_SLACK_SECONDS = 0.5


def read_clip(path: str | Path, contract: Contract) -> UInt8:
    """Draw one clip from a video by the contract's sampling rule.

    Memory: the T chosen frames and the decoder's own few.

    Args:
        path: a video file.
        contract: says how many frames, and how they are drawn.

    Returns:
        uint8 (T, h, w, 3): RGB at the video's own size, turned as its rotation metadata says.

    Raises:
        ClipError: no such file, not a video, cut short, damaged, without T frames, of changing
            size, or turned by something else than quarter turns.
    """
    path, wanted = Path(path), contract.clip.num_frames
    _require_file(path)
    with _as_clip_error(path):
        num_frames, is_stated = _count_frames(path)
        _require_length(path, num_frames, wanted)
        clip, decoded = _decode(path, num_frames, wanted)
        if decoded == num_frames:
            return clip
        if not is_stated:
            # Some packets of these containers show no frame (VP8's hidden references, a recording
            # that does not begin with a key frame): count by the decoder instead.
            num_frames = decoded
            _require_length(path, num_frames, wanted)
            clip, decoded = _decode(path, num_frames, wanted)
        if decoded != num_frames:
            raise ClipError(
                f"{path} is damaged: {decoded} of its {num_frames} frames can be decoded; copy or encode it again"
            )
    return clip


def find_clips(folder_or_file: str | Path) -> list[Path]:
    """List videos.

    Args:
        folder_or_file: a folder, searched through all levels for files with a video suffix (hidden
            ones are skipped), or one file of any name.

    Returns:
        Paths in sorted order; at least one.

    Raises:
        ClipError: it does not exist, or the folder holds no video.
    """
    root = Path(folder_or_file)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ClipError(f"{root} does not exist; give a video file or a folder of videos")
    files = (p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    clips = sorted(p for p in files if not any(part.startswith(".") for part in p.relative_to(root).parts))
    if not clips:
        raise ClipError(f"{root} holds no video; files with one of these suffixes are taken: {' '.join(_SUFFIXES)}")
    return clips


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise ClipError(f"{path} is a folder; give one video file")
    if not path.exists():
        raise ClipError(f"{path} does not exist; give a video file")


def _require_length(path: Path, num_frames: int, wanted: int) -> None:
    if num_frames == 0:
        raise ClipError(f"{path} holds no video frames; it is empty or cut short")
    if num_frames < wanted:
        raise ClipError(f"{path} has {num_frames} frames but the model takes {wanted}; give a longer video")


@contextmanager
def _as_clip_error(path: Path) -> Iterator[None]:
    try:
        yield
    except av.error.FFmpegError as e:
        raise ClipError(
            f"{path} cannot be read as a video ({e.strerror}): it is not one, is cut short or is damaged; "
            "check that it plays"
        ) from e


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    # An absolute path, or FFmpeg reads the "a" of "a:b.mp4" as a protocol.
    with av.open(str(path.absolute())) as container:
        if container.format.name == "tty":  # FFmpeg renders any text file as a terminal session
            raise ClipError(f"{path} is a text file; give a video file")
        video = container.streams.best("video")  # not simply the first: that may be a cover picture
        if not isinstance(video, av.VideoStream):
            kinds = sorted({stream.type for stream in container.streams})
            raise ClipError(f"{path} has no video stream, only {', '.join(kinds) or 'nothing'}; give a video file")
        yield container, video


def _count_frames(path: Path) -> tuple[int, bool]:
    """Count the packets that show a frame, without decoding; refuse a file that ends early.

    Returns:
        The count, and whether the container keeps a frame index of its own, so that each packet
        must give a frame. Its stated total is not used: it includes what an edit list hides.
    """
    num_frames, end_seconds = 0, 0.0
    with _open(path) as (container, video):
        kind = container.format.name
        for packet in container.demux():
            if packet.is_corrupt and kind != "mpegts":  # there it only means a lost transport packet
                raise ClipError(f"{path} is cut short: its last data are incomplete; copy or record it again")
            if not packet.size or packet.is_discard:  # the flush packet; frames outside the edit list
                continue
            num_frames += packet.stream is video
            if packet.pts is not None and packet.time_base is not None:
                end_seconds = max(end_seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        stated_seconds, is_stated = (container.duration or 0) / av.time_base, video.frames > 0
    if kind.startswith(_STATES_DURATION) and end_seconds < stated_seconds - _DURATION_SLACK_SECONDS:
        raise ClipError(
            f"{path} is cut short: its header states {stated_seconds:.1f} s but the data end at {end_seconds:.1f} s; "
            "copy or record it again"
        )
    return num_frames, is_stated


def _decode(path: Path, num_frames: int, wanted: int) -> tuple[UInt8, int]:
    """Decode the whole video and keep the sampled frames.

    Args:
        path: the video.
        num_frames: how many frames it should decode to, at least ``wanted``.
        wanted: how many to keep.

    Returns:
        uint8 (wanted, h, w, 3) and the number of frames decoded. The clip is complete only if that
        is ``num_frames``.
    """
    slots = {i * num_frames // wanted: i for i in range(wanted)}
    clip = np.empty((0, 0, 0, 3), np.uint8)
    decoded = 0
    with _open(path) as (container, video):
        video.thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video)):
            decoded = index + 1
            slot = slots.get(index)
            if slot is None:
                continue
            image = _upright_rgb(frame, path)
            if slot == 0:
                clip = np.empty((wanted, *image.shape), np.uint8)
            if image.shape != clip.shape[1:]:
                raise ClipError(
                    f"{path} changes its frame size from {clip.shape[2]}x{clip.shape[1]} to "
                    f"{image.shape[1]}x{image.shape[0]} (width x height); convert it to one size"
                )
            clip[slot] = image
    return clip, decoded


def _upright_rgb(frame: av.VideoFrame, path: Path) -> UInt8:
    quarter_turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise ClipError(f"{path} is turned by {frame.rotation} degrees; only quarter turns are supported")
    image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return np.rot90(image, quarter_turns)  # both count counter-clockwise

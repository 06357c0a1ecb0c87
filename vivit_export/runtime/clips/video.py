"""Read frames from a video file. The only module that imports PyAV.

Videos are decoded in full and in presentation order, without seeking: seeking is wrong on many streams,
and the frame count in a container's header is often missing or wrong. The exact count comes from the packets,
and is checked against the number of frames that are actually decoded. `vivit_export.runtime.clips.sampling`
says which frames are taken.

Color: each frame becomes 8-bit RGB in swscale with PyAV's defaults. Matrix and range are those the
stream declares. If it declares none, they are BT.601 and limited range, whatever the size. Halved chroma is
repeated in 8-bit sources, and interpolated (bilinear) in deeper ones, which are rounded to 8 bits.
OpenCV, which also uses FFmpeg, produces the same bits except for deep sources with halved chroma, which
it interpolates by a cubic.
Pixels are assumed to be square. Nothing is resized here (see `vivit_export.runtime.clips.preprocess`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.packages import LOWEST_PYAV, require_version
from vivit_export.runtime.clips.sampling import Indices, clip_indices

UInt8 = npt.NDArray[np.uint8]

_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
# Containers whose header states the duration; the others' is an estimate from the file itself.
_STATES_DURATION = ("matroska", "mov")
_DURATION_SLACK_SECONDS = 0.5
# One frame is too little to share among threads: with PyAV's default of all cores the conversion took
# seven times as long.
_TO_RGB: dict[str, Any] = {"format": "rgb24", "threads": 1}

require_version("PyAV", av.__version__, LOWEST_PYAV, "an older one gives other colors without a word")


def read_clip(path: str | Path, contract: Contract) -> UInt8:
    """Draw one clip from a video by the contract's sampling rule.

    Memory: the T chosen frames and the decoder's own few. ``views`` are read by
    `vivit_export.runtime.read_views`; this function ignores them and returns a single clip.

    Args:
        path: a video file.
        contract: says how many frames, and how they are drawn.

    Returns:
        uint8 (T, h, w, 3): RGB at the video's own size, turned as its rotation metadata says.

    Raises:
        ClipError: no such file, not a video, cut short, damaged, too short, of changing size, or
            turned by something else than quarter turns.
    """
    path = Path(path)
    return read_sampled(path, lambda num_frames: clip_indices(num_frames, contract.clip, source=str(path)))


def read_sampled(
    path: Path, choose: Callable[[int], Indices], store: Callable[[UInt8], UInt8] = lambda frame: frame
) -> UInt8:
    """Decode a video and store the chosen frames.

    Args:
        path: a video file.
        choose: maps the number of frames N to n frame numbers in [0, N), in any order; it may
            raise. It is called again if decoding shows a different N.
        store: maps an upright RGB frame, uint8 (h, w, 3), to the array to keep, always of the same shape.

    Returns:
        uint8 (n, *shape of what is stored), in the order of ``choose``.

    Raises:
        ClipError: as for `read_clip`.
    """
    with _as_clip_error(path):
        scan = _scan(path)
        num_frames = len(scan.starts)
        kept, decoded = _collect(path, choose(num_frames), store)
        if decoded != num_frames and not scan.has_index:
            # Some packets of these containers show no frame (VP8's hidden references, a recording
            # that does not begin with a key frame): count by the decoder instead.
            num_frames = decoded
            kept, decoded = _collect(path, choose(num_frames), store)
        require_all_decoded(path, decoded, num_frames)
    return kept


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


def require_file(path: Path) -> None:
    """Refuse a path that is not a file.

    Raises:
        ClipError: it is a folder, or does not exist.
    """
    if path.is_dir():
        raise ClipError(f"{path} is a folder; give one video file")
    if not path.exists():
        raise ClipError(f"{path} does not exist; give a video file")


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


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the frames of a video are shown, in seconds from the first.

    Attributes:
        starts: float64 (N,), not decreasing, from 0.
        end_seconds: when the last frame ends.
    """

    starts: npt.NDArray[np.float64]
    end_seconds: float


def read_timeline(path: Path) -> Timeline:
    """Find out when each frame is shown: from the packets, or by decoding if packets may hide frames.

    Memory: less than 100 bytes per frame.

    Raises:
        ClipError: as for `read_clip`.
    """
    with _as_clip_error(path):
        scan = _scan(path)
        starts = scan.starts if scan.has_index or scan.shows_each_packet else _decoded_starts(path)
    if not starts:
        raise ClipError(f"{path} holds no video frames; it is empty or cut short")
    known = sorted(t for t in starts if t is not None)
    if len(known) < len(starts):  # AVI and bare streams have no times: frames follow each other evenly
        known = [i / scan.rate for i in range(len(starts))]
    times = np.array(known) - known[0]
    return Timeline(times, max(scan.end_seconds - known[0], float(times[-1]) + 0.5 / scan.rate))


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the packets of a video say, without decoding.

    Attributes:
        starts: when each frame is shown, in seconds or None, in order of decoding. The total that
            the container states is not used: it includes frames that an edit list hides.
        end_seconds: when the last frame ends, if known.
        rate: mean number of frames per second.
        has_index: the container has a frame index of its own, so each packet must hold a frame.
        shows_each_packet: neither the codec nor the beginning hides frames.
    """

    starts: list[float | None]
    end_seconds: float
    rate: float
    has_index: bool
    shows_each_packet: bool


def _scan(path: Path) -> _Scan:
    """Read all packets; refuse a file that ends early."""
    require_file(path)
    starts: list[float | None] = []
    end, data_end, begins_with_key = 0.0, 0.0, True
    with _open(path) as (container, video):
        kind = container.format.name
        for packet in container.demux():
            if packet.is_corrupt and kind != "mpegts":  # there it only means a lost transport packet
                raise ClipError(f"{path} is cut short: its last data are incomplete; copy or record it again")
            if not packet.size or packet.is_discard:  # the flush packet; frames outside the edit list
                continue
            packet_start, packet_end = _shown(packet)
            data_end = max(data_end, packet_end)
            if packet.stream is video:
                begins_with_key = begins_with_key and (bool(starts) or packet.is_keyframe)
                starts.append(packet_start)
                end = max(end, packet_end)
        stated_end = (container.duration or 0) / av.time_base
        if kind.startswith(_STATES_DURATION) and data_end < stated_end - _DURATION_SLACK_SECONDS:
            raise ClipError(
                f"{path} is cut short: its header states {stated_end:.1f} s but the data end at {data_end:.1f} s; "
                "copy or record it again"
            )
        rate = float(video.average_rate or video.guessed_rate or 25)
        return _Scan(starts, end, rate, video.frames > 0, begins_with_key and video.codec_context.name != "vp8")


def _shown(packet: av.Packet[Any]) -> tuple[float | None, float]:
    """Return when a packet's frame is first shown, or None, and when it ends, or 0."""
    if packet.pts is None or packet.time_base is None:
        return None, 0.0
    tick = float(packet.time_base)
    return packet.pts * tick, (packet.pts + (packet.duration or 0)) * tick


def _decoded_starts(path: Path) -> list[float | None]:
    with _open(path) as (container, video):
        video.thread_type = "AUTO"
        return [frame.time for frame in container.decode(video)]


def _collect(path: Path, indices: Indices, store: Callable[[UInt8], UInt8]) -> tuple[UInt8, int]:
    """Return the stored frames at ``indices``, and the number of frames decoded.

    The array is complete only if all those frames were decoded.
    """
    slots: dict[int, list[int]] = {}
    for slot, index in enumerate(indices.tolist()):
        slots.setdefault(index, []).append(slot)
    kept, decoded = np.empty(0, np.uint8), 0
    for index, frame in decode_frames(path, slots.__contains__):
        decoded = index + 1
        if frame is None:
            continue
        stored = store(frame)
        if not kept.size:
            kept = np.empty((len(indices), *stored.shape), np.uint8)
        for slot in slots[index]:
            kept[slot] = stored
    return kept, decoded


def decode_frames(path: Path, is_wanted: Callable[[int], bool]) -> Iterator[tuple[int, UInt8 | None]]:
    """Decode a whole video in order of presentation.

    Args:
        path: a video file.
        is_wanted: asked once for each frame number, just before that frame is yielded.

    Yields:
        The frame's number and, if wanted, the frame: uint8 (h, w, 3), upright RGB.

    Raises:
        ClipError: as for `read_clip`, except that the number of frames is not checked.
    """
    shape: tuple[int, ...] = ()
    with _as_clip_error(path), _open(path) as (container, video):
        video.thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video)):
            if not is_wanted(index):
                yield index, None
                continue
            image = _upright_rgb(frame, path)
            shape = shape or image.shape
            if image.shape != shape:
                raise ClipError(
                    f"{path} changes its frame size from {shape[1]}x{shape[0]} to "
                    f"{image.shape[1]}x{image.shape[0]} (width x height); convert it to one size"
                )
            yield index, image


def require_all_decoded(path: Path, decoded: int, num_frames: int) -> None:
    """Refuse a video with fewer or more frames than its packets promised.

    Raises:
        ClipError: the numbers differ.
    """
    if decoded != num_frames:
        raise ClipError(
            f"{path} is damaged: {decoded} of its {num_frames} frames can be decoded; copy or encode it again"
        )


def _upright_rgb(frame: av.VideoFrame, path: Path) -> UInt8:
    quarter_turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise ClipError(f"{path} is turned by {frame.rotation} degrees; only quarter turns are supported")
    image = np.asarray(frame.to_ndarray(**_TO_RGB), np.uint8)
    return np.rot90(image, quarter_turns)  # both count counter-clockwise

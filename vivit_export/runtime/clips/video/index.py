"""Which packets of a video show a frame, and when: read without decoding more than the beginning.

The exact number of frames comes from the packets, because the count in a container's header is often missing or wrong.
Three kinds of packets show nothing. Those outside the edit list, and those before the first key frame of a codec that
cannot begin without one, are left out altogether. The third kind only the decoder knows: a recording that begins
between key frames, or was cut at one to which earlier pictures refer, shows its first frame later. So the first frame
is decoded, and what precedes it is hidden.

Times are those of the packets, on one line (`vivit_export.runtime.clips.video.clock`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import PictureType

from vivit_export.errors import ClipError
from vivit_export.runtime.clips.video.clock import Clock, several_recordings
from vivit_export.runtime.clips.video.container import as_clip_error, decoded_frames, ended, open_video
from vivit_export.runtime.clips.video.flv import is_joined
from vivit_export.runtime.clips.video.nal import holds_idr, length_bytes_of
from vivit_export.runtime.clips.video.segment import segment_is_whole
from vivit_export.runtime.clips.video.stopping import stop_if_dropped

# Containers whose header states the duration; the others' is an estimate from the file itself.
_STATES_DURATION = ("matroska", "mov")
_DURATION_SLACK_SECONDS = 0.5
# Their decoders find a point from which pictures are whole, which need not be a key frame. The others draw on gray.
BEGINS_ANYWHERE = ("h264", "hevc", "vvc", "mpeg1video", "mpeg2video")


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """The packets of a video that are decoded, numbered from 0 in order of decoding.

    Attributes:
        path: the video.
        container: FFmpeg's name of its kind of file.
        skip: how many packets before the first of these are never decoded.
        pts: when the frame of each is shown, in the container's ticks, or None; hidden ones included.
        starts: the same in seconds, on one line even if recordings were joined.
        keys: times of the key frames in ticks, rising.
        hidden: numbers of those at the beginning that show nothing.
        end_seconds: when the last frame ends, if known.
        rate: mean number of frames per second.
        pixels: of a frame, as the header says.
        has_index: the container has a frame index of its own, so each packet must hold a frame.
        shows_each_packet: the codec has no other packets that show nothing.
    """

    path: Path
    container: str
    skip: int
    pts: list[int | None]
    starts: list[float | None]
    keys: list[int]
    hidden: frozenset[int]
    end_seconds: float
    rate: float
    pixels: int
    has_index: bool
    shows_each_packet: bool

    @property
    def num_frames(self) -> int:
        """Frames that are shown, unless the codec hides more."""
        return len(self.starts) - len(self.hidden)


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the frames of a video are shown, in seconds from the first.

    Attributes:
        starts: float64 (N,), not decreasing, from 0.
        end_seconds: when the last frame ends.
    """

    starts: npt.NDArray[np.float64]
    end_seconds: float


def read_index(path: Path) -> VideoIndex:
    """Read all packets of a video, and decode its first frame where that may not be in the first packet.

    Memory: less than 100 bytes per frame.

    Raises:
        ClipError: no such file, not a video, or cut short.
    """
    with as_clip_error(path), open_video(path) as (container, video):
        return index_of(path, container, video)


def index_of(path: Path, container: InputContainer, video: av.VideoStream) -> VideoIndex:
    """Do `read_index` for a video that has just been opened; only a seek leads back to its packets.

    Raises:
        ClipError: as for `read_index`.
        av.error.FFmpegError: it is damaged.
    """
    codec = video.codec_context.name
    knows_size = bool(video.codec_context.width)  # what is shown before a size is known cannot be decoded
    scan = _Scan(path, container, video)
    if not knows_size and 1 not in scan.keys:
        raise ClipError(f"{path} has no key frame, at which decoding could begin; record or cut it again from one")
    skip = 0 if codec in BEGINS_ANYWHERE and knows_size else max(0, scan.keys.find(1))
    shown = scan.shown[skip:]
    pts, starts = list(compress(scan.pts[skip:], shown)), list(compress(scan.starts[skip:], shown))
    keys = bytes(compress(scan.keys[skip:], shown))
    hidden = frozenset[int]()
    if scan.is_reordered or not _begins_plainly(starts, keys, codec, scan.begins_with_idr):
        hidden = _hidden(path, skip, pts, starts, scan.is_reordered)
    # A key frame always shows, unless it is one of H.264's points of recovery, or the file is damaged there.
    if codec != "h264" and any(keys[n] for n in hidden):
        hidden = frozenset()
    held_back = 0
    if hidden and scan.is_reordered:
        starts = [None] * len(starts)  # they would be those of other frames
    elif scan.is_reordered:
        held_back = _held_back(path, scan.dts)
        starts = _shown_later(starts, held_back, 1 / scan.rate)
    return VideoIndex(
        path=path,
        container=container.format.name,
        skip=skip,
        pts=pts,
        starts=starts,
        keys=sorted(time for time in compress(pts, keys) if time is not None),
        hidden=hidden,
        end_seconds=scan.clock.end + held_back / scan.rate,
        rate=scan.rate,
        pixels=video.codec_context.width * video.codec_context.height,
        has_index=video.frames > 0,
        shows_each_packet=codec != "vp8",
    )


class _Scan:
    """All packets of the video stream that have data, in order of decoding.

    Attributes:
        pts: when the frame of each is shown, in ticks, or None.
        dts: when each is decoded, in ticks, or None.
        starts: when its frame is shown, in seconds; see `Clock`.
        keys: 1 for a key frame.
        shown: 0 for what lies outside the edit list.
        rate: mean number of frames per second.
        clock: has put the times on one line.
        begins_with_idr: the first holds a picture of H.264 before which nothing is needed.
        is_reordered: times are in order of decoding though the pictures are not: AVI stores none.
    """

    def __init__(self, path: Path, container: InputContainer, video: av.VideoStream) -> None:
        self.pts: list[int | None] = []
        self.dts: list[int | None] = []
        self.starts: list[float | None] = []
        self.keys, self.shown, self.begins_with_idr = bytearray(), bytearray(), False
        kind = container.format.name
        ends = dict.fromkeys(container.streams, 0)  # of their data, in ticks
        self.rate = float(video.average_rate or video.guessed_rate or 25)
        self.clock = Clock(path, kind, _tick_seconds(video), 1 / self.rate)
        self.is_reordered = kind == "avi" and bool(video.codec_context.has_b_frames)
        length_bytes = length_bytes_of("h264", video.codec_context.extradata)
        with ended(container.demux()) as packets:
            for packet in packets:
                stop_if_dropped()
                if packet.is_corrupt and kind != "mpegts":  # there it only means a lost transport packet
                    raise ClipError(f"{path} is cut short: its last data are incomplete; copy or record it again")
                if not packet.size:
                    continue
                stream, pts, is_shown = packet.stream, packet.pts, not packet.is_discard
                if is_shown and pts is not None:
                    ends[stream] = max(ends.get(stream, 0), pts + (packet.duration or 0))
                if stream is video:
                    self.begins_with_idr |= not self.starts and holds_idr(packet, length_bytes)
                    self.shown.append(is_shown)
                    self.keys.append(packet.is_keyframe)
                    self.pts.append(pts)
                    self.dts.append(packet.dts)
                    self.starts.append(self.clock.place(packet) if is_shown else None)
        if kind == "flv" and is_joined(path):
            raise several_recordings(path)
        data_end = max(ticks * _tick_seconds(stream) for stream, ticks in ends.items())
        stated_end = (container.duration or 0) / av.time_base
        states_duration = kind.startswith(_STATES_DURATION)
        if states_duration and data_end < stated_end - _DURATION_SLACK_SECONDS and not segment_is_whole(path):
            raise ClipError(
                f"{path} is cut short: its header states {stated_end:.1f} s but the data end at {data_end:.1f} s; "
                "copy or record it again"
            )


def _tick_seconds(stream: Stream) -> float:
    return float(stream.time_base or 0)


def _begins_plainly(starts: Sequence[float | None], keys: bytes, codec: str, with_idr: bool) -> bool:
    """Whether the first packet surely holds the first frame."""
    if not starts or not keys[0] or (codec == "h264" and not with_idr):
        return False
    first = starts[0]
    return first is None or all(start is None or start >= first for start in starts)


def _hidden(
    path: Path, skip: int, pts: Sequence[int | None], starts: Sequence[float | None], is_reordered: bool
) -> frozenset[int]:
    """Return the packets that come before the first frame shown, in order of decoding or of presentation."""
    with closing(decoded_frames(path, skip)) as frames:
        frame = next(frames, None)
        if frame is None or frame.pts not in pts:  # bare streams have no times
            return frozenset()
        first = pts.index(frame.pts)
        if is_reordered:
            return frozenset(range(first)) | _lost_leaders(frames, pts, first)
    begin = starts[first] or 0  # a later picture may come first, to be decoded before the ones that refer to it
    return frozenset(n for n, start in enumerate(starts) if (n < first if start is None else start < begin))


def _held_back(path: Path, dts: Sequence[int | None]) -> int:
    """Return how many frames the decoder holds back to put them in order.

    Its first frame has the time of the packet with which it came, that of decoding.
    """
    with closing(decoded_frames(path, 0)) as frames:
        frame = next(frames, None)
    return dts.index(frame.dts) if frame is not None and frame.dts in dts else 0


def _shown_later(decoded: Sequence[float | None], held_back: int, frame_seconds: float) -> list[float | None]:
    """Return when frames are shown, in order, by when packets are decoded: each with the packet that brings it out."""
    last = decoded[-1]
    ends = [None if last is None else last + (n + 1) * frame_seconds for n in range(held_back)]
    return [*decoded[held_back:], *ends]


def _lost_leaders(frames: Iterator[av.VideoFrame], pts: Sequence[int | None], first: int) -> frozenset[int]:
    """Return the packets after the first one shown that led up to it, where times do not say so.

    These are B pictures that refer to what was cut off. The picture that is decoded after them is of another type and
    has B pictures of its own, which tells them from lost ones::

        decoded    I  b  b  P  B  B        I  P  B  B  P
        shown      I        B  B  P        I     B  B  P   the first P is lost: damage
    """
    shown = {first}
    for frame in frames:
        if frame.pts not in pts:
            break
        number = pts.index(frame.pts)
        if frame.pict_type != PictureType.B:
            between = frozenset(range(first + 1, number))
            return frozenset() if between & shown or shown == {first} else between
        shown.add(number)
    return frozenset()


def timeline_of(index: VideoIndex) -> Timeline:
    """Find out when each frame is shown: from the packets, or by decoding if the codec may hide frames.

    Memory: less than 100 bytes per frame.

    Raises:
        ClipError: the video holds no frames, or cannot be decoded.
    """
    if index.has_index or index.shows_each_packet:
        starts = [start for number, start in enumerate(index.starts) if number not in index.hidden]
    else:
        starts = _decoded_starts(index)
    if not starts:
        raise ClipError(f"{index.path} holds no video frames; it is empty or cut short")
    known = sorted(t for t in starts if t is not None)
    if len(known) < len(starts):  # bare streams have no times: frames follow each other evenly
        return Timeline(np.arange(len(starts)) / index.rate, len(starts) / index.rate)
    times = np.array(known) - known[0]
    return Timeline(times, max(index.end_seconds - known[0], float(times[-1]) + 0.5 / index.rate))


def _decoded_starts(index: VideoIndex) -> list[float | None]:
    packets = zip(index.pts, index.starts, strict=True)
    with as_clip_error(index.path):
        # No codec that hides frames reorders them, so the packet of each frame is still ahead.
        return [
            next((start for pts, start in packets if pts == frame.pts), None)
            for frame in decoded_frames(index.path, index.skip)
        ]

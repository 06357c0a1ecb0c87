"""Decode only what the wanted frames of a video need.

Groups of pictures are independent: decoding one from its key frame gives the same bits as decoding the whole video.
The frame at time t is decoded from the last key frame at or before t; pictures to which no other refers are skipped
unless they are wanted; and frames are recognized by their time, never by counting::

    packets   I  p  b  p  b  p | I  p  b  p  b  p | I  p  b  p
    wanted                ^                                  ^
    decoded   I  p     p  b                         I  p     p

That reasoning has gaps, and wherever there may be one, seeking is refused and the video must be decoded in full: times
that are missing or repeated, containers that store no times of presentation or no index of key frames, packets
that show nothing or half a picture, a seek that ends behind its key frame, a key frame that does not show (a point of
gradual recovery), a frame that the decoder marks as damaged, or that does not appear.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import av
from av.packet import Packet

from vivit_export.runtime.clips.container import open_video, share_among
from vivit_export.runtime.clips.index import VideoIndex
from vivit_export.runtime.clips.stopping import stop_if_dropped

_CONTAINERS = ("matroska", "mov")  # beginnings of FFmpeg's names
_FIXED_WHEN_OPENED = ("libdav1d",)  # decoders that cannot be told for each packet whether it may be skipped


class CannotSeekError(Exception):
    """The video must be decoded in full; the message says why. Not a fault of the video."""


@dataclass(frozen=True, slots=True)
class Group:
    """Wanted frames that follow one key frame.

    Attributes:
        key: time of the key frame in ticks, or None: decode from the beginning.
        wanted: number of each wanted frame by its time in ticks.
    """

    key: int | None
    wanted: dict[int, int]


def plan_groups(index: VideoIndex, wanted: Iterable[int]) -> Iterator[Group]:
    """Find the key frame of each wanted frame.

    Args:
        index: of the video.
        wanted: frame numbers, rising.

    Returns:
        Groups in order of time, made as they are read.

    Raises:
        CannotSeekError: it is not certain which packet holds which frame.
    """
    if not index.container.startswith(_CONTAINERS):
        raise CannotSeekError(f"seeking in {index.container.split(',')[0]} files is not exact")
    if index.skip or index.hidden:
        raise CannotSeekError("its first packets show nothing")
    if not (index.has_index or index.shows_each_packet):
        raise CannotSeekError("its codec may hide frames")
    times = sorted(time for time in index.pts if time is not None)
    if len(times) < len(index.pts):
        raise CannotSeekError("it has frames without a time")
    if any(earlier == later for earlier, later in pairwise(times)):
        raise CannotSeekError("it has several frames with one time")
    return _groups(times, index.keys, wanted)


def _groups(times: list[int], keys: list[int], wanted: Iterable[int]) -> Iterator[Group]:
    group: Group | None = None
    for number in wanted:
        after = bisect_right(keys, times[number])
        key = keys[after - 1] if after else None
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = Group(key, {})
        group.wanted[times[number]] = int(number)
    if group is not None:
        yield group


def seek_frames(index: VideoIndex, wanted: Iterable[int], threads: int = 0) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode the wanted frames.

    Args:
        index: of the video.
        wanted: frame numbers, rising.
        threads: of the decoder; 0: as many as there are cores.

    Yields:
        The number of each wanted frame, and the frame, in order of presentation.

    Raises:
        CannotSeekError: what is decoded is not certain to be what a full decode gives; also after some frames.
        ClipError: as for `open_video`.
    """
    groups = plan_groups(index, wanted)
    with open_video(index.path) as (container, video):
        share_among(threads, video)
        for group in groups:
            try:
                if group.key is not None:
                    container.seek(group.key, stream=video)
                yield from _decode_group(container.demux(video), video, group)
            except av.error.FFmpegError as e:
                raise CannotSeekError(f"the decoder fails ({e.strerror})") from e


def _decode_group(
    packets: Iterator[Packet[av.VideoStream]], video: av.VideoStream, group: Group
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode from a key frame until all wanted frames are there; the decoder holds nothing from before."""
    context, pending = video.codec_context, dict(group.wanted)
    can_skip = context.codec.name not in _FIXED_WHEN_OPENED
    landed: int | None = None
    key_shows = group.key is None
    for packet in packets:
        stop_if_dropped()
        is_first = landed is None and bool(packet.size)
        if is_first:
            landed = packet.pts
            if group.key is not None and (landed is None or landed > group.key or not packet.is_keyframe):
                raise CannotSeekError(f"a seek to the tick {group.key} ends at {landed}")
        if can_skip:
            context.skip_frame = "DEFAULT" if is_first or packet.pts in pending else "NONREF"
        for frame in packet.decode():
            if frame.is_corrupt:
                raise CannotSeekError("the decoder reports an error")
            if frame.interlaced_frame:
                raise CannotSeekError("it is interlaced, and a packet may hold half a picture")
            key_shows = key_shows or frame.pts == landed
            number = None if frame.pts is None else pending.pop(frame.pts, None)
            if number is not None:
                if not key_shows:
                    raise CannotSeekError("a key frame does not show")
                yield number, frame
        if not pending:
            return
    raise CannotSeekError(f"{len(pending)} of its wanted frames do not appear")

"""Decode only what the wanted frames of a video need.

Groups of pictures are independent: decoding one from its key frame gives the same bits as decoding the whole video.
The frame at time t is decoded from the last key frame at or before t; pictures to which no other refers are skipped
unless they are wanted; and frames are recognized by their time, never by counting::

    packets   I  p  b  p  b  p | I  p  b  p  b  p | I  p  b  p
    wanted                ^                                  ^
    decoded   I  p     p  b                         I  p     p

Where threads are to spare, several groups are decoded at once, each in a decoder of its own.

That reasoning has gaps, and wherever there may be one, seeking is refused and the video must be decoded in full: times
that are missing or repeated, containers that store no times of presentation or no index of key frames, packets
that show nothing or half a picture, a seek that ends after its key frame, a frame that the decoder marks as damaged,
or one on the way that does not appear (damage, or a key frame that is only a point of gradual recovery).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Generic, TypeVar

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet

from vivit_export.cores import usable_cores
from vivit_export.runtime.clips.video.container import OpenedVideo, ended, open_video, share_among
from vivit_export.runtime.clips.video.index import VideoIndex
from vivit_export.runtime.clips.video.nal import CODECS_WITH_HEADERS, is_referred_to, length_bytes_of
from vivit_export.runtime.clips.video.stopping import read_in_order, stop_if_dropped

T = TypeVar("T")
Convert = Callable[[av.VideoFrame], T]

_CONTAINERS = ("matroska", "mov")  # beginnings of FFmpeg's names
_PICTURES_OF_A_DECODER = 8  # to which others refer, or that are put in order; H.264 allows 16 of small ones
_MOST_BYTES = 512 << 20  # of all decoders; repeated in detail/libav/seek_at_once.hpp for C++


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
    return _groups(_certain_times(index), index.keys, wanted)


def _certain_times(index: VideoIndex) -> list[int]:
    """Return the time of each frame in ticks, in order of presentation; raise as `plan_groups` does."""
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
    return times


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


def seek_frames(
    index: VideoIndex,
    wanted: Sequence[int],
    converter: Callable[[], Convert[T]],
    item_bytes: int,
    threads: int = 0,
    opened: OpenedVideo | None = None,
) -> Generator[tuple[int, T], None, None]:
    """Decode the wanted frames, and convert them.

    Args:
        index: of the video.
        wanted: frame numbers, rising.
        converter: returns what converts the frames of a decoder, in its thread.
        item_bytes: memory of what it makes of a frame.
        threads: of all decoders; 0: as many as there are cores.
        opened: the video, of which nothing has been decoded; without it the video is opened. Close the iterator before
            it: threads may be decoding what comes next.

    Yields:
        The number of each wanted frame, and what was made of the frame, in order of presentation.

    Raises:
        CannotSeekError: what is decoded is not certain to be what a full decode gives; also after some frames.
        ClipError: as for `open_video`.
    """
    times = _certain_times(index)
    groups = _groups(times, index.keys, wanted)
    first = next(groups, None)
    if first is None:
        return
    if first.key is None:
        opened = None  # no seek leads to the beginning
    threads, decoders = threads or usable_cores(), 1
    if threads > 1:
        decoders = _num_decoders(index, _group_sizes(times, index.keys, wanted), item_bytes, threads)
    if decoders > 1:
        several = _Decoders(index, converter, threads // decoders)
        yield from several.convert(chain([first], groups), decoders, opened)
        return
    convert = converter()
    with nullcontext(opened) if opened else open_video(index.path) as (container, video):
        share_among(threads, video)
        for group in chain([first], groups):
            for number, frame in _seek_group(container, video, group):
                yield number, convert(frame)


def _group_sizes(times: list[int], keys: list[int], wanted: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return how many frames of each group are wanted, of those of which any is."""
    after = np.searchsorted(np.array(keys, np.int64), np.array(times, np.int64)[np.array(wanted, np.int64)], "right")
    return np.unique(after, return_counts=True)[1]


def _num_decoders(index: VideoIndex, group_sizes: npt.NDArray[np.int64], item_bytes: int, threads: int) -> int:
    """Return how many groups to decode at once, each in a decoder of its own.

    The threads of one decoder wait for each other, while several decoders cost no more CPU time than one: on two cores
    the 32 frames of a long video took little more than half the time, and a tenth less of the cores'
    (benchmarks/throughput.py, section ``long``). But each decoder has pictures of its own in memory, and for each there
    is what was made of the wanted frames of three groups: that which it is at, one that waits, and the one being taken.
    """
    of_each = 2 * index.pixels * _PICTURES_OF_A_DECODER + 3 * int(group_sizes.max()) * item_bytes
    return max(1, min(threads, len(group_sizes), _MOST_BYTES // max(1, of_each)))


class _Decoders(Generic[T]):
    """Decoders of one video, of which each thread takes one at a time."""

    def __init__(self, index: VideoIndex, converter: Callable[[], Convert[T]], threads: int) -> None:
        self._path, self._converter, self._threads = index.path, converter, threads
        self._spare: list[tuple[OpenedVideo, Convert[T]]] = []
        self._videos = ExitStack()

    def convert(self, groups: Iterable[Group], at_once: int, opened: OpenedVideo | None) -> Iterator[tuple[int, T]]:
        """Decode groups at once, and yield what is made of their frames in order."""
        with self._videos:
            if opened is not None:
                self._spare.append(self._ready(opened))
            with closing(read_in_order(self._decode, groups, at_once)) as found:
                for items in found:
                    yield from items

    def _decode(self, group: Group) -> list[tuple[int, T]]:
        opened, convert = decoder = self._take(is_new=group.key is None)
        items = [(number, convert(frame)) for number, frame in _seek_group(*opened, group)]
        self._spare.append(decoder)
        return items

    def _take(self, *, is_new: bool) -> tuple[OpenedVideo, Convert[T]]:
        if not is_new:
            with suppress(IndexError):
                return self._spare.pop()
        return self._ready(self._videos.enter_context(open_video(self._path)))

    def _ready(self, opened: OpenedVideo) -> tuple[OpenedVideo, Convert[T]]:
        share_among(self._threads, opened[1])
        return opened, self._converter()


def _seek_group(container: InputContainer, video: av.VideoStream, group: Group) -> Iterator[tuple[int, av.VideoFrame]]:
    try:
        if group.key is not None:
            container.seek(group.key, stream=video)
        with ended(container.demux(video)) as packets:
            yield from _decode_group(packets, video, group)
    except av.error.FFmpegError as e:
        raise CannotSeekError(f"the decoder fails ({e.strerror})") from e


def _decode_group(
    packets: Iterator[Packet[av.VideoStream]], video: av.VideoStream, group: Group
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode from a key frame until all wanted frames are there; the decoder holds nothing from before.

    A packet that shows nothing is damaged, and what refers to it is wrong. So a frame is only passed on when all that
    was decoded before it has appeared, which takes as many frames more as the decoder puts in order.
    """
    is_needed, unsent = _Needed(video), set(group.wanted)
    owed: dict[int, int] = {}  # what was decoded and is to appear, by its time, with its place in order of decoding
    waiting: deque[tuple[int, int, av.VideoFrame]] = deque()  # its place, its number, and the frame
    landed, place = 0, 0
    for packet in packets:
        stop_if_dropped()
        if packet.size:
            if not place:
                landed = _landing(packet, group)
            place += 1
            is_decoded = is_needed(packet, place == 1 or packet.pts in unsent)
            # What leads up to the key frame, and what is outside the edit list, does not appear.
            if packet.pts is not None:
                if unsent and is_decoded and not packet.is_discard and packet.pts >= landed:
                    owed[packet.pts] = place
                unsent.discard(packet.pts)
        for frame in packet.decode():
            at = _require_certain(frame, owed)
            if frame.pts in group.wanted:
                waiting.append((at, group.wanted[frame.pts], frame))
            while waiting and all(other > waiting[0][0] for other in owed.values()):
                _, number, first = waiting.popleft()
                yield number, first
        if not unsent and not waiting and not owed:
            return
    raise CannotSeekError(f"{len(unsent) + len(owed)} frames do not appear")


def _landing(packet: Packet[av.VideoStream], group: Group) -> int:
    """Return the time of the first packet after a seek, from which all wanted frames can be decoded."""
    if packet.pts is None or (group.key is not None and (packet.pts > group.key or not packet.is_keyframe)):
        raise CannotSeekError(f"a seek to the tick {group.key} ends at {packet.pts}")
    return packet.pts


def _require_certain(frame: av.VideoFrame, owed: dict[int, int]) -> int:
    """Take a frame off what is owed, and return its place in order of decoding."""
    if frame.is_corrupt:
        raise CannotSeekError("the decoder reports an error")
    if frame.interlaced_frame:
        raise CannotSeekError("it is interlaced, and a packet may hold half a picture")
    if frame.pts is None:
        raise CannotSeekError("the decoder gives a frame no time")
    place = owed.pop(frame.pts, 0)
    if any(other < frame.pts for other in owed):
        raise CannotSeekError("a packet on the way shows no frame")
    return place


class _Needed:
    """Tells the decoder to skip pictures to which no other refers; only where a packet's own header says that."""

    def __init__(self, video: av.VideoStream) -> None:
        self._context = video.codec_context
        self._codec = self._context.name
        self._length_bytes = length_bytes_of(self._codec, self._context.extradata)

    def __call__(self, packet: Packet[av.VideoStream], is_wanted: bool) -> bool:
        """Return whether the packet will be decoded."""
        if self._codec not in CODECS_WITH_HEADERS:
            return True
        is_referred = is_referred_to(packet, self._codec, self._length_bytes)
        if is_referred is None:
            raise CannotSeekError("a packet holds no picture")
        is_decoded = is_wanted or is_referred
        self._context.skip_frame = "DEFAULT" if is_decoded else "NONREF"
        return is_decoded

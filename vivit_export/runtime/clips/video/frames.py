"""Read frames from a video file.

`read_index` finds out which packets show a frame. Then only what the wanted frames need is decoded (`seek_frames`).
Where that is not certain to give the same bits, or on request, the whole video is decoded instead, in presentation
order and without seeking, and its frames are counted. A frame that the decoder marks as damaged makes the video
unusable, whether it is wanted or not. Decoders notice most damage of H.264 and MPEG; that of HEVC and VP9, whose data
have little redundancy, often passes. `ToUprightRgb` gives frames their color and orientation. Nothing is resized here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vivit_export.errors import ClipError
from vivit_export.runtime.clips.video.container import OpenedVideo, as_clip_error, decoded_frames, open_video
from vivit_export.runtime.clips.video.index import VideoIndex, index_of
from vivit_export.runtime.clips.video.picture import OneSize, SizedConverter
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.seek import CannotSeekError, seek_frames

UInt8 = npt.NDArray[np.uint8]
T = TypeVar("T")

_MOST_RUNS = 8  # of damaged frames that an error spells out


def read_sampled(path: Path, choose: Callable[[int], npt.NDArray[np.int64]], reading: Reading = AS_NEEDED) -> UInt8:
    """Return the chosen frames of a video, uint8 (n, h, w, 3), in the order of ``choose``; see `place_sampled`."""
    frames = np.empty(0, np.uint8)
    num_chosen = 0

    def counted(num_frames: int) -> npt.NDArray[np.int64]:
        nonlocal num_chosen
        chosen = choose(num_frames)
        num_chosen = len(chosen)
        return chosen

    def put(frame: UInt8, places: Sequence[int]) -> None:
        nonlocal frames
        if frames.shape != (num_chosen, *frame.shape):
            frames = np.empty((num_chosen, *frame.shape), np.uint8)
        for place in places:
            frames[place] = frame

    place_sampled(path, counted, put, reading)
    return frames


def place_sampled(
    path: Path,
    choose: Callable[[int], npt.NDArray[np.int64]],
    put: Callable[[UInt8, Sequence[int]], None],
    reading: Reading = AS_NEEDED,
) -> None:
    """Decode the chosen frames of a video.

    Args:
        path: a video file.
        choose: maps the number of frames N to n frame numbers in [0, N), in any order; it may
            raise. It is called again if decoding shows a different N.
        put: receives each chosen frame once, upright RGB uint8 (h, w, 3), with all its places in the order of
            ``choose``, from 0 to n - 1; and everything once more if decoding shows a different N.
        reading: how much is decoded.

    Raises:
        ClipError: as for `vivit_export.runtime.read_clip`.
    """
    with as_clip_error(path), open_video(path) as opened:
        index = index_of(path, *opened)
        try:
            _pass_on(index, index.num_frames, choose(index.num_frames), put, reading, opened)
            return
        except MiscountError as e:
            if index.has_index:
                raise
            num_frames = e.decoded
    # Some packets of these containers show no frame (VP8's hidden references, the second field of a
    # picture): count by the decoder instead.
    _pass_on(index, num_frames, choose(num_frames), put, Reading("full", reading.threads))


def _pass_on(
    index: VideoIndex,
    num_frames: int,
    indices: npt.NDArray[np.int64],
    put: Callable[[UInt8, Sequence[int]], None],
    reading: Reading,
    opened: OpenedVideo | None = None,
) -> None:
    places: dict[int, list[int]] = {}
    for place, wanted in enumerate(indices.tolist()):
        places.setdefault(wanted, []).append(place)
    frames = wanted_frames(index, num_frames, sorted(places), reading, _as_it_is, 3 * index.pixels, opened)
    with closing(frames):  # before the video is
        for number, frame in frames:
            put(frame, places[number])


def _as_it_is(image: UInt8) -> UInt8:
    return image


class MiscountError(ClipError):
    """A whole video was decoded, and has another number of frames than its packets promised.

    Attributes:
        decoded: how many it has.
    """

    def __init__(self, path: Path, decoded: int, num_frames: int) -> None:
        super().__init__(
            f"{path} is damaged: {decoded} of its {num_frames} frames can be decoded; copy or encode it again"
        )
        self.decoded = decoded


def wanted_frames(
    index: VideoIndex,
    num_frames: int,
    wanted: Sequence[int],
    reading: Reading,
    convert: Callable[[UInt8], T],
    item_bytes: int,
    opened: OpenedVideo | None = None,
) -> Generator[tuple[int, T], None, None]:
    """Decode some frames of a video, and convert them.

    Args:
        index: of the video.
        num_frames: how many frames it has.
        wanted: numbers of the frames, rising.
        reading: how much is decoded.
        convert: receives each wanted frame, uint8 (h, w, 3), upright RGB; it may be called in several threads.
        item_bytes: memory of what it returns.
        opened: as for `seek_frames`; close the iterator before it.

    Yields:
        The number of each wanted frame and what was made of the frame, in order of presentation.

    Raises:
        MiscountError: after all of it was decoded.
        ClipError: as for `vivit_export.runtime.read_clip`. Where all is decoded, a damaged frame ends the iteration in
            its place.
    """
    converter = partial(SizedConverter, index.path, convert)
    one_size, done = OneSize(index.path), 0
    with as_clip_error(index.path):
        if reading.decode == "auto":
            try:
                found = seek_frames(index, wanted, converter, item_bytes, reading.threads, opened)
                with closing(found):
                    for number, (shape, item) in found:
                        one_size.require(shape)  # decoders know the size of their own frames only
                        yield number, item
                        done += 1
                return
            except CannotSeekError as e:
                reading.note(index.path, str(e))
        ahead = iter(wanted[done:])
        following, decoded = next(ahead, None), 0
        to_item = converter()
        frames = enumerate(decoded_frames(index.path, index.skip, reading.threads))
        for number, frame in frames:
            decoded = number + 1
            if frame.is_corrupt:
                raise _damage(index.path, [number, *(later for later, other in frames if other.is_corrupt)])
            if number == following:
                shape, item = to_item(frame)
                one_size.require(shape)
                yield number, item
                following = next(ahead, None)
    if decoded != num_frames:
        raise MiscountError(index.path, decoded, num_frames)


def _damage(path: Path, numbers: Sequence[int]) -> ClipError:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    named = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:_MOST_RUNS])
    named += ", …" if len(runs) > _MOST_RUNS else ""
    frames = "1 frame" if len(numbers) == 1 else f"{len(numbers)} frames"
    return ClipError(f"{path} is damaged: the decoder reports errors in {frames} ({named}); copy or encode it again")

"""Sliding windows over long videos, in bounded memory.

A window is a span [start, end) of a video of length L. One clip is drawn from it by the contract's
sampling rule, as if it were a separate video. Windows begin at 0, hop, 2 * hop, … as long as they
fit. If frames would be left over, one more window ends with the video::

    video    |--------------------------------|   L
    0        [--------------)
    1                  [--------------)
    2                            [--------------) does not fit, and is moved:
    2                          [--------------)   L - window

A video shorter than one window is one window. With hop > window the gaps are intended, and nothing is
moved. Seconds count from the first frame. A window holds the frames that are first shown in it, or, if
there are none, the frame that is on screen.

Frames are decoded once (`vivit_export.runtime.clips.video.frames`). Only frames that a window takes are converted and
cropped, by the threads that decode them, and only crops that an open window still needs are kept in memory.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from vivit_export.arguments import instance
from vivit_export.contract import Clip, Contract
from vivit_export.errors import UsageError, option
from vivit_export.files import as_path
from vivit_export.runtime.clips.sampling import Indices, clip_indices
from vivit_export.runtime.clips.video.frames import wanted_frames
from vivit_export.runtime.clips.video.index import Timeline, VideoIndex, read_index, timeline_of
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.views import ViewCropper

UInt8 = npt.NDArray[np.uint8]
Unit = Literal["seconds", "frames"]

SHORTEST_SECONDS = 0.001
"""Shortest window and hop: no camera shows a new frame sooner, and a typing error would give millions of windows."""
SLACK_SECONDS = 1e-6
"""Frame times are multiples of a tick, rounded to double."""


@dataclass(frozen=True, slots=True)
class WindowRule:
    """Sliding windows: see `read_windows`.

    Attributes:
        length: length of a window.
        hop: from the beginning of one window to the next; None: the length.
        unit: unit of both: ``seconds``, from 0.001, or ``frames``, whole numbers from 1.
    """

    length: float
    hop: float | None = None
    unit: Unit = "seconds"

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise UsageError(f"{option('unit', repr(self.unit))} is not one of {', '.join(get_args(Unit))}")
        for name, value in (("window", self.length), ("hop", self.step)):
            if not isinstance(value, Real):
                given = option(name, repr(value))
                raise UsageError(f"{given} must be a number of {self.unit}; leave quotes and units out")
            if self.unit == "frames" and not (value >= 1 and value % 1 == 0):
                raise UsageError(f"{option(name, f'{value:g}f')} must be a whole number of frames, 1 or more")
            if self.unit == "seconds" and not SHORTEST_SECONDS <= value < float("inf"):
                raise UsageError(
                    f"{option(name, f'{value:g}')} must be a number of seconds, {SHORTEST_SECONDS:g} or more"
                )

    @property
    def step(self) -> float:
        """From the beginning of one window to the next."""
        return self.length if self.hop is None else self.hop


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """One window of a video.

    Attributes:
        start_seconds: its beginning, from the first frame of the video.
        end_seconds: its end, not included.
        first_frame: number of its first frame.
        end_frame: number after its last frame.
    """

    start_seconds: float
    end_seconds: float
    first_frame: int
    end_frame: int


@dataclass(frozen=True, slots=True, eq=False)
class Window(Span):
    """One window of a video, and the clip drawn from it.

    Attributes:
        frames: uint8 (T, H, W, 3), cropped; for a model with input mode ``frames`` (T, h, w, 3) at
            the video's own size.
    """

    frames: UInt8

    def __repr__(self) -> str:
        seconds = f"{self.start_seconds:.3f} s to {self.end_seconds:.3f} s"
        return f"Window({seconds}, frames {self.first_frame} to {self.end_frame}, {self.frames.shape})"


def read_windows(
    path: str | Path,
    contract: Contract,
    *,
    window: float,
    hop: float | None = None,
    unit: Unit = "seconds",
    reading: Reading = AS_NEEDED,
) -> Iterator[Window]:
    """Read a video window by window.

    Memory: one crop for each frame that open windows have taken so far, at most T times the number of
    overlapping windows; the result of the current window; less than 200 bytes per frame of the video; and what the
    decoders are ahead, 512 MB at most or the frames of one decoder.

    Args:
        path: a video file.
        contract: says how many frames to draw from a window, and how. Only the central one of its
            ``views`` is read.
        window: length of a window, see `WindowRule` for its limits.
        hop: from the beginning of one window to the next; None: the window's length.
        unit: unit of both.
        reading: how much is decoded.

    Returns:
        An iterator over the windows in order of time. The file is opened now, decoded as the
        iterator is used, and closed when the iterator ends or is closed.

    Raises:
        ClipError: as for `read_clip`; also while iterating.
        UsageError: a window or a hop that is too short, or a fraction of a frame; or it is not a path.
    """
    path, contract = as_path(path, "path"), instance("contract", contract, Contract)
    rule = WindowRule(window, hop, unit)
    index = read_index(path)
    timeline = timeline_of(index)
    spans = plan_windows(timeline, window, rule.step, unit)
    shortest = min(spans, key=lambda span: span.end_frame - span.first_frame)
    _indices(shortest, contract.clip, path)  # refuses here what could not be drawn later
    return _stream(index, contract, spans, len(timeline.starts), reading)


def plan_windows(timeline: Timeline, window: float, hop: float, unit: Unit) -> list[Span]:
    """Lay windows over a video.

    Args:
        timeline: when its frames are shown.
        window: length of a window, above zero.
        hop: from the beginning of one window to the next, above zero.
        unit: what both are counted in.

    Returns:
        At least one; ``first_frame`` and ``start_seconds`` never decrease, each has a frame.
    """
    starts, end_seconds = timeline.starts, timeline.end_seconds
    if unit == "frames":
        edges = np.append(starts, end_seconds)
        begins = window_begins(len(starts), window, hop)
        ranges = [(int(b), min(int(b + window), len(starts))) for b in begins]
        return [Span(float(edges[first]), float(edges[end]), first, end) for first, end in ranges]
    spans = []
    for begin in window_begins(end_seconds, window, hop):
        end = min(begin + window, end_seconds)
        first_frame, end_frame = (int(np.searchsorted(starts, t - SLACK_SECONDS)) for t in (begin, end))
        if first_frame == end_frame:
            first_frame, end_frame = first_frame - 1, first_frame
        spans.append(Span(begin, end, first_frame, end_frame))
    return spans


def window_begins(length: float, window: float, hop: float) -> list[float]:
    """Return where windows begin in a video of a length, all in one unit; the last one may be moved."""
    room = length - window
    if room <= SLACK_SECONDS:
        return [0.0]
    begins = [float(i * hop) for i in range(int((room + SLACK_SECONDS) / hop) + 1)]
    if hop <= window and begins[-1] < room - SLACK_SECONDS:
        begins.append(room)
    return begins


def _indices(span: Span, clip: Clip, path: Path) -> Indices:
    source = f"{path}: the window from {span.start_seconds:.2f} s to {span.end_seconds:.2f} s"
    return span.first_frame + clip_indices(span.end_frame - span.first_frame, clip, source=source)


def _stream(
    index: VideoIndex, contract: Contract, spans: Sequence[Span], num_frames: int, reading: Reading
) -> Iterator[Window]:
    is_wanted = np.zeros(num_frames, bool)
    for span in spans:
        is_wanted[_indices(span, contract.clip, index.path)] = True
    clip, cropper = contract.clip, ViewCropper(contract, spatial=1)
    pixels = index.pixels if contract.io.mode == "frames" else clip.height * clip.width
    windows = _OpenWindows(index.path, clip, spans)
    wanted = np.flatnonzero(is_wanted).tolist()
    crops = wanted_frames(index, num_frames, wanted, reading, lambda image: cropper(image)[0], 3 * pixels)
    with closing(crops):
        for number, crop in crops:
            windows.open_until(number)
            windows.crops[number] = crop
            yield from windows.close(number)


class _OpenWindows:
    """The windows that have begun and lack frames.

    Attributes:
        crops: by frame number, what they have so far.
    """

    def __init__(self, path: Path, clip: Clip, spans: Sequence[Span]) -> None:
        self.crops: dict[int, UInt8] = {}
        self._path, self._clip = path, clip
        self._ahead = deque(spans)
        self._open: deque[tuple[Span, Indices]] = deque()
        self._uses: Counter[int] = Counter()  # how many open windows take a frame

    def open_until(self, index: int) -> None:
        """Open the windows that begin with this frame or before."""
        while self._ahead and self._ahead[0].first_frame <= index:
            span = self._ahead.popleft()
            indices = _indices(span, self._clip, self._path)
            self._open.append((span, indices))
            self._uses.update(set(indices.tolist()))

    def close(self, index: int) -> Iterator[Window]:
        """Yield the windows that have all their frames after this one, in their order."""
        while self._open and self._open[0][1].max() <= index:
            span, indices = self._open.popleft()
            frames = np.stack([self.crops[i] for i in indices.tolist()])
            for i in set(indices.tolist()):
                self._uses[i] -= 1
                if not self._uses[i]:
                    del self._uses[i], self.crops[i]
            yield Window(span.start_seconds, span.end_seconds, span.first_frame, span.end_frame, frames)

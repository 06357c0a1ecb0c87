"""Sliding windows over frames that come one by one, by the rule of `vivit_export.runtime.clips.windows`.

A window is cut when the first frame beyond it is there: no earlier frame can tell that none is missing. So the windows
of a video are those that `read_windows` reads from a file of it, bit for bit; the last one, which ends with the video,
is cut when the video ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vivit_export.contract import Clip
from vivit_export.errors import ClipError
from vivit_export.runtime.clips.sampling import clip_indices
from vivit_export.runtime.clips.windows import SLACK_SECONDS, Window, WindowRule, window_begins

UInt8 = npt.NDArray[np.uint8]

_MOST_RATE = 1000  # frames per second; a clock that stands still would fill the memory


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LiveWindow(Window):
    """One window of live video, and the clip drawn from it.

    Attributes:
        arrived: when the last of its frames did, by `time.monotonic`.
        connection: number of the connection that it came over, from 0.
    """

    arrived: float
    connection: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A frame that some window may still take."""

    number: int
    seconds: float
    crop: UInt8
    arrived: float


class SlidingWindows:
    """Cuts windows.

    Memory: one crop for each frame of the last ``rule.length + rule.step``.

    Args:
        rule: how long they are.
        clip: how frames are drawn from one.
        name: what messages call the video.
        refuse: takes the error of a window from which no clip can be drawn; it may raise it.
    """

    def __init__(self, rule: WindowRule, clip: Clip, name: str, refuse: Callable[[ClipError], None]) -> None:
        self._rule, self._clip, self._name, self._refuse = rule, clip, name, refuse
        self._kept: deque[_Kept] = deque()
        self._next = 0  # number of the next window
        self._count = 0
        self._most = _MOST_RATE * (rule.length + rule.step) + _MOST_RATE

    def push(self, seconds: float, crop: UInt8, arrived: float) -> Iterator[LiveWindow]:
        """Add the next frame, and yield the windows that it ends, in order.

        Args:
            seconds: when it is shown, from the first; never less than before.
            crop: what windows keep of it.
            arrived: see `LiveWindow`.

        Raises:
            ClipError: the clock stands still.
        """
        frame = _Kept(self._count, seconds, crop, arrived)
        while self._kept and self._next * self._rule.step + self._rule.length <= self._place(frame) + SLACK_SECONDS:
            begin = float(self._next * self._rule.step)
            end = begin + self._rule.length
            in_seconds = (begin, end) if self._rule.unit == "seconds" else (self._seconds_of(begin), seconds)
            yield from self._cut(begin, end, *in_seconds)
            self._next += 1
            self._forget()
        self._kept.append(frame)
        self._count += 1
        self._forget()
        if self._rule.unit == "seconds" and len(self._kept) > self._most:
            raise ClipError(
                f"the clock of {self._name} stands still: {len(self._kept)} frames within "
                f"{seconds - self._kept[0].seconds:.2f} s; let its encoder send a time with each frame"
            )

    def finish(self, end_seconds: float) -> Iterator[LiveWindow]:
        """Yield the windows that are left when the video has ended.

        Args:
            end_seconds: when its last frame ends, from the first.
        """
        if not self._count:
            return
        by_frames = self._rule.unit == "frames"
        length = float(self._count) if by_frames else end_seconds
        for begin in window_begins(length, self._rule.length, self._rule.step)[self._next :]:
            end = min(begin + self._rule.length, length)
            in_seconds = (begin, end)
            if by_frames:
                in_seconds = (self._seconds_of(begin), end_seconds if end == length else self._seconds_of(end))
            yield from self._cut(begin, end, *in_seconds)

    def _place(self, frame: _Kept) -> float:
        return frame.seconds if self._rule.unit == "seconds" else frame.number

    def _seconds_of(self, number: float) -> float:
        return self._kept[int(number) - self._kept[0].number].seconds

    def _cut(self, begin: float, end: float, start_seconds: float, end_seconds: float) -> Iterator[LiveWindow]:
        frames = [k for k in self._kept if begin - SLACK_SECONDS <= self._place(k) < end - SLACK_SECONDS]
        if not frames:  # what is on screen
            frames = [max((k for k in self._kept if self._place(k) < begin), key=lambda k: k.number)]
        source = f"{self._name}: the window from {start_seconds:.2f} s to {end_seconds:.2f} s"
        try:
            indices = clip_indices(len(frames), self._clip, source=source)
        except ClipError as e:
            self._refuse(e)
            return
        clip = np.stack([frames[i].crop for i in indices.tolist()])
        numbers = frames[0].number, frames[-1].number + 1
        yield LiveWindow(start_seconds, end_seconds, *numbers, clip, max(frame.arrived for frame in frames))

    def _forget(self) -> None:
        """Drop the frames that no window takes, but for the one on screen before them."""
        # The window that is moved to the end of the video begins after the last one that was cut.
        first = self._next - 1 if self._rule.step <= self._rule.length else self._next
        needed = max(0, first) * self._rule.step - SLACK_SECONDS
        while len(self._kept) > 1 and self._place(self._kept[1]) <= needed:
            self._kept.popleft()

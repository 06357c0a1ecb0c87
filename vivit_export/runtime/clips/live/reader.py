"""Read the windows of live video in a thread of its own, and connect again when a server or camera is lost.

What happens when a connection ends, for whatever reason:

- Its last window, which ends with its last frame, is cut as at the end of a file.
- A file over HTTP and standard input have ended, well or with an error.
- A server or camera (RTSP, UDP, TCP, a device) that has shown a frame is connected again: at once, then after pauses
  that double from 0.25 s to 8 s, for ``reconnect`` seconds. One that has shown none is an error at once: its address
  is more likely wrong than its network. Windows start over with the new connection, and none spans the pause; their
  times count on by this machine's clock.

Python cannot stop a thread that waits within FFmpeg. When nobody takes windows anymore, the thread ends at its next
packet, or when its ``timeout`` has passed; it keeps no process alive.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, final

import numpy as np

from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.runtime.clips.live.address import LiveAddress, OnLate
from vivit_export.runtime.clips.live.sliding import LiveWindow, SlidingWindows
from vivit_export.runtime.clips.live.waiting import WaitingWindows
from vivit_export.runtime.clips.pixels.arrays import as_array, described
from vivit_export.runtime.clips.views import ViewCropper, require_size
from vivit_export.runtime.clips.windows import WindowRule
from vivit_export.signals import outlast

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 8.0
_LOOK_SECONDS = 0.2  # how long a wait can last before signals and a dead thread are noticed
_CLOSE_SECONDS = 0.3
_LONGEST_TIMEOUTS = 4  # to open a connection takes up to two

TimedFrames = Iterable[tuple[float, Any]]
"""Pairs of a time in seconds and a frame, uint8 (h, w, 3) RGB or a Pillow image."""


@dataclasses.dataclass(frozen=True, slots=True)
class LiveRule:
    """How live video is read.

    Attributes:
        window: the windows to cut.
        on_late: what happens to windows that come faster than they are taken.
        timeout: longest time without data, in seconds.
        reconnect: how long to try to reach a lost source again, in seconds; 0: the first end is the end.
    """

    window: WindowRule
    on_late: OnLate
    timeout: float
    reconnect: float


@final
class LiveReader:
    """Windows of live video; a context manager, and an iterator of what waits.

    Args:
        source: an address, or frames with their times.
        name: what messages call it.
        contract: says what windows keep of a frame.
        rule: see there.
        note: takes sentences about what was lost and found again.
    """

    def __init__(
        self,
        source: LiveAddress | TimedFrames,
        name: str,
        contract: Contract,
        rule: LiveRule,
        note: Callable[[str], None],
    ) -> None:
        self._source, self._name, self._contract, self._rule, self._note = source, name, contract, rule, note
        self._waiting = WaitingWindows(rule.on_late)
        self._shrink = ViewCropper(contract, spatial=1)
        self._has_cut, self._connections = False, 0  # the latter have shown a frame
        self._begun: float | None = None  # when the very first frame arrived
        # For drivers of cameras, which do not heed timeouts. Callers' own frames may take any time.
        self._alive_at = time.monotonic()
        is_given = not isinstance(source, LiveAddress)
        self._longest_silence = math.inf if is_given else _LONGEST_TIMEOUTS * rule.timeout + LONGEST_PAUSE_SECONDS
        self._thread = threading.Thread(target=self._work, name="vivit-live", daemon=True)

    def __enter__(self) -> LiveReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.abandon()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():  # FFmpeg waits for data, and asks Python every 0.1 s whether to go on
            outlast(self._thread)

    def batches(self, most: int) -> Iterator[tuple[list[LiveWindow], int]]:
        """Yield the windows that wait, at most so many at a time, and how many were dropped before them.

        Raises:
            ClipError: the source cannot be read, or is lost for good.
        """
        while (taken := self._waiting.take(most, _LOOK_SECONDS)) is not None:
            if taken[0]:
                yield taken
            elif time.monotonic() - self._alive_at > self._longest_silence:
                raise ClipError(
                    f"{self._name} has hung for {self._longest_silence:g} s; connect it again, or choose another source"
                )

    # --- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            if isinstance(self._source, LiveAddress):
                self._read_address(self._source)
            else:
                self._read_frames(self._source)
        except BaseException as e:
            self._waiting.end(e)
        else:
            self._waiting.end(None)

    def _read_address(self, address: LiveAddress) -> None:
        lost_at, pause = 0.0, FIRST_PAUSE_SECONDS
        while not self._waiting.stop.is_set():
            self._alive_at = time.monotonic()
            has_shown, fault = self._read_connection(address)
            if self._waiting.stop.is_set():
                return
            if has_shown:
                lost_at, pause = time.monotonic(), 0.0
            if not (address.is_lasting and self._rule.reconnect and lost_at):
                if fault is not None:
                    raise fault
                return
            reason = "it ended the connection" if fault is None else fault.sentence
            if has_shown:
                self._note(f"lost {address.name} ({reason}); connecting again")
            if time.monotonic() + pause - lost_at > self._rule.reconnect:
                raise ClipError(
                    f"{address.name} was lost, and could not be reached again within {self._rule.reconnect:g} s "
                    f"({reason})"
                )
            self._waiting.stop.wait(pause)
            pause = min(max(2 * pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)

    def _read_connection(self, address: LiveAddress) -> tuple[bool, ClipError | None]:
        """Read until a connection ends; return whether it showed a frame, and what was wrong."""
        from vivit_export.runtime.clips.live.connection import connect

        windows: SlidingWindows | None = None
        offset, end_seconds, fault = 0.0, 0.0, None
        try:
            with connect(address, self._rule.timeout, self._waiting.stop) as connection:
                for frame in connection.frames(self._stop_if_abandoned):
                    if windows is None:
                        self._begun = frame.arrived if self._begun is None else self._begun
                        self._connections += 1
                        windows, offset = self._sliding(address.is_lasting), frame.arrived - self._begun
                    crop = self._shrink(frame.image)[0]
                    self._pass_on(windows.push(frame.seconds, crop, frame.arrived), offset)
                    end_seconds = connection.end_seconds
                end_seconds = connection.end_seconds
                if connection.damaged:
                    self._note(f"{address.name}: {connection.damaged} damaged frames were left out")
                if windows is None:
                    fault = ClipError(f"{address.name} ended without a single frame; check that it sends video")
        except _Abandoned:
            return windows is not None, None
        except ClipError as e:
            fault = e
        if windows is not None and fault is None:
            self._pass_on(windows.finish(end_seconds), offset)
        elif windows is not None and address.is_lasting:
            with suppress(ClipError):  # that too little is left is no news
                self._pass_on(windows.finish(end_seconds), offset)
        return windows is not None, fault

    def _read_frames(self, frames: TimedFrames) -> None:
        windows, checked = self._sliding(False), _CheckedFrames(self._name)
        for item in frames:
            self._stop_if_abandoned()
            arrived = time.monotonic()
            seconds, image = checked(item)
            crop = self._shrink(image)[0].copy()  # the caller may use the frame's memory for the next one
            self._pass_on(windows.push(seconds, crop, arrived), 0.0)
        self._pass_on(windows.finish(checked.end_seconds), 0.0)

    def _sliding(self, may_skip: bool) -> SlidingWindows:
        def refuse(error: ClipError) -> None:
            if not (may_skip and self._has_cut):
                raise error
            self._note(f"a window was left out: {error.sentence}")

        return SlidingWindows(self._rule.window, self._contract.clip, self._name, refuse)

    def _pass_on(self, windows: Iterator[LiveWindow], offset: float) -> None:
        for window in windows:
            require_size(window.frames[None], self._name, self._contract)
            self._has_cut = True
            start, end = window.start_seconds + offset, window.end_seconds + offset
            placed = dataclasses.replace(
                window, start_seconds=start, end_seconds=end, connection=max(0, self._connections - 1)
            )
            self._waiting.put(placed)
            self._stop_if_abandoned()

    def _stop_if_abandoned(self) -> None:
        self._alive_at = time.monotonic()
        if self._waiting.stop.is_set():
            raise _Abandoned


class _Abandoned(Exception):  # noqa: N818 - nothing is wrong
    """Nobody takes windows anymore."""


class _CheckedFrames:
    """Checks frames that a caller gives.

    Attributes:
        end_seconds: when the last one ends: it is shown as long as the one before it.
    """

    def __init__(self, name: str) -> None:
        self.end_seconds = 0.0
        self._name = name
        self._first: float | None = None
        self._last, self._step, self._count = 0.0, 0.0, 0
        self._shape: tuple[int, ...] | None = None

    def __call__(self, item: Any) -> tuple[float, Any]:
        """Return the time from the first frame, and the frame as an array.

        Raises:
            ClipError: it is not a pair, or does not follow the one before it.
        """
        where = f"{self._name}: frame {self._count}"
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ClipError(f"{where} must be a pair (time in seconds, frame), got {described(item)}")
        seconds, image = item
        image = np.asarray(as_array(image))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ClipError(f"{where} must be uint8 (h, w, 3) in RGB, got {described(image)}")
        if self._shape is not None and image.shape != self._shape:
            raise ClipError(f"{where} is {image.shape}, but those before it are {self._shape}; resize it first")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float, np.number)) or not math.isfinite(seconds):
            raise ClipError(f"{where} has the time {seconds!r}; give seconds as a number")
        self._first = float(seconds) if self._first is None else self._first
        since = float(seconds) - self._first
        if since < self._last:
            raise ClipError(f"{where} has the time {seconds:g} s, which is before that of the last; give rising times")
        self._step = since - self._last or self._step
        self._shape, self._last, self._count = image.shape, since, self._count + 1
        self.end_seconds = since + self._step
        return since, image

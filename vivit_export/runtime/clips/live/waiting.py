"""The windows that wait for the engine: never more than a few."""

from __future__ import annotations

import threading
from collections import deque

from vivit_export.runtime.clips.live.address import OnLate
from vivit_export.runtime.clips.live.sliding import LiveWindow

MOST_WAITING = 4
"""A short pause of the engine costs no window, a long one no memory."""


class WaitingWindows:
    """Hands windows from the thread that reads to the one that runs the engine.

    Args:
        on_late: what happens to a new window if there is no place: ``drop`` the oldest one, or let the reader ``wait``.

    Attributes:
        stop: set when nobody takes windows anymore.
    """

    def __init__(self, on_late: OnLate) -> None:
        self.stop = threading.Event()
        self._on_late = on_late
        self._windows: deque[LiveWindow] = deque()
        self._dropped, self._has_ended = 0, False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, window: LiveWindow) -> None:
        """Add a window."""
        with self._changed:
            if len(self._windows) >= MOST_WAITING:
                if self._on_late == "drop":
                    self._windows.popleft()
                    self._dropped += 1
                self._changed.wait_for(lambda: len(self._windows) < MOST_WAITING or self.stop.is_set())
            self._windows.append(window)
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        """Say that no window follows, and why."""
        with self._changed:
            self._has_ended, self._error = True, error
            self._changed.notify_all()

    def take(self, most: int, seconds: float) -> tuple[list[LiveWindow], int] | None:
        """Wait for windows; return those that wait, at most so many, and how many were dropped before them.

        Args:
            most: how many to take.
            seconds: how long to wait; none may have come then.

        Returns:
            None when all have been taken and no more follow.

        Raises:
            BaseException: what ended the reading, after all windows have been taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._windows or self._has_ended, seconds)
            if not self._windows and self._has_ended:
                if self._error is not None:
                    raise self._error
                return None
            taken = [self._windows.popleft() for _ in range(min(most, len(self._windows)))]
            dropped, self._dropped = self._dropped, 0
            self._changed.notify_all()
        return taken, dropped

    def abandon(self) -> None:
        """Let the reader go."""
        with self._changed:
            self.stop.set()
            self._windows.clear()
            self._changed.notify_all()

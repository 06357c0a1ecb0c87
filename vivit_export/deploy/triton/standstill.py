"""Notice that this process stood still while Triton waited for its answer, and then give none.

Triton asks whether the process that runs a Python model is alive. If it has not run for a second, the server gives up
the requests that the model works on, but neither ends the process nor forgets its answer: when the process runs again,
the server takes that answer for one to the *next* request, whose sender gets the result of somebody else's video, and
both free the same memory, until the server crashes. A stopped container, a machine that sleeps or migrates, or a clock
that is set forward is enough. Triton 2.51 does so, and so do its sources of 26.07.

No answer is better. So a process that stood still ends itself, and each request after that gets an error.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_EVERY = 0.1  # seconds between two looks at the clocks
# The server waits for a second, in which a sign of life comes every 0.3 seconds: it may give up after a standstill of
# 0.7 seconds, rarely after less than this, and always after 2.
_TOO_LONG = 0.9
_IDLE = 0.2  # share of processor time below which the process did not run: a long call of its own is none
_PENDING = 0.3  # seconds from when a process runs again to when it has taken what came meanwhile


@dataclass(frozen=True, slots=True)
class Moment:
    """What the clocks say, in seconds.

    Attributes:
        steady: a clock that is never set.
        wall: the one that Triton waits by, which may be.
        used: processor time of this process, in all its threads.
    """

    steady: float
    wall: float
    used: float

    @classmethod
    def now(cls) -> Moment:
        """Look at the clocks."""
        return cls(time.monotonic(), time.time(), time.process_time())

    def stood_still_since(self, before: Moment) -> bool:
        """Whether the process did not run for too long."""
        passed = max(self.steady - before.steady, self.wall - before.wall)
        return passed > _TOO_LONG and self.used - before.used < _IDLE * passed


class Watch:
    """Looks at the clocks all the time, from a thread.

    Args:
        now: the clocks.
        end: ends the process.
    """

    def __init__(self, now: Callable[[], Moment] = Moment.now, end: Callable[[], object] | None = None) -> None:
        self._now, self._end = now, end or _end
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._looked = now()
        self._still = float("-inf")

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._watch, name="vivit-standstill", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def look(self) -> Moment:
        """Compare the clocks with the last look."""
        with self._lock:
            now = self._now()
            if now.stood_still_since(self._looked):
                self._still = now.steady
            self._looked = now
        return now

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Work on requests; end the process if it stood still while they waited or were worked on."""
        begun = self.look().steady - _PENDING
        self._require_running(begun)
        try:
            yield
        finally:  # an error is an answer, too
            self.look()
            self._require_running(begun)

    def _require_running(self, since: float) -> None:
        if self._still >= since:
            self._end()

    def _watch(self) -> None:
        while not self._stopped.wait(_EVERY):
            self.look()


def _end() -> None:
    said = (
        "vivit-export: this process stood still while Triton waited for its answer, which Triton would take for the "
        "answer to another request; it ends without one. Load the model again, or restart the server\n"
    )
    os.write(2, said.encode())
    os._exit(1)

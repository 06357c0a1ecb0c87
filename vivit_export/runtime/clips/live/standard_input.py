"""Standard input as a file that FFmpeg reads, and that can be left at any time."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from functools import partial

from vivit_export.errors import ClipError, option

_LOOK_SECONDS = 0.1


class StandardInput:
    """Reads a file descriptor; waits for data, but never for long after ``stop`` is set.

    Attributes:
        name: what messages call it.
        received: bytes so far.
        seek: moves in a file that is redirected; absent for a pipe.
        tell: the place in it; likewise.
    """

    seek: Callable[[int, int], int]
    tell: Callable[[], int]

    def __init__(self, stop: threading.Event, timeout: float, descriptor: int = 0) -> None:
        self.name, self.received = "standard input", 0
        self._descriptor, self._stop, self._timeout = descriptor, stop, timeout
        try:
            os.lseek(descriptor, 0, os.SEEK_CUR)
        except OSError:
            return
        self.seek, self.tell = partial(os.lseek, descriptor), partial(os.lseek, descriptor, 0, os.SEEK_CUR)

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, and none at the end.

        Raises:
            ClipError: nothing comes, or it cannot be read.
        """
        since = time.monotonic()
        try:
            while not select.select([self._descriptor], [], [], _LOOK_SECONDS)[0]:
                if self._stop.is_set():
                    return b""
                if time.monotonic() - since > self._timeout:
                    raise ClipError(
                        f"standard input brought nothing for {self._timeout:g} s; check what writes to it, or give it "
                        f"longer with {option('timeout')}"
                    )
            data = os.read(self._descriptor, size)
        except (OSError, ValueError) as e:
            raise ClipError(f"standard input cannot be read ({e}); pipe a video into it") from e
        self.received += len(data)
        return data

"""Read videos in threads that can be stopped between two frames.

Python ends a process only when the threads of its pools have ended. A thread that decodes a long video would
therefore keep a process alive long after Ctrl-C.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar
from types import TracebackType
from typing import ParamSpec, TypeVar, final

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Of the pool that the current thread reads for; each thread has a context of its own.
_STOP: ContextVar[threading.Event | None] = ContextVar("vivit_export_stop", default=None)


@final
class ReadingPool:
    """A pool of threads whose work is dropped when its context ends: what has begun stops at its next frame.

    Args:
        num_threads: how many videos are read at once.
    """

    def __init__(self, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads)
        self._stop = threading.Event()

    def submit(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Call ``work`` in a thread."""

        def run() -> _T:
            _STOP.set(self._stop)
            return work(*args, **kwargs)

        return self._pool.submit(run)

    def __enter__(self) -> ReadingPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


def stop_if_dropped() -> None:
    """Stop here if nobody waits for the result anymore; called once for each packet and frame.

    Raises:
        CancelledError: the pool that this thread reads for has ended.
    """
    stop = _STOP.get()
    if stop is not None and stop.is_set():
        raise CancelledError

"""Read videos, or parts of one, in threads that can be stopped between two frames.

Python ends a process only when the threads of its pools have ended. A thread that decodes a long video would
therefore keep a process alive long after Ctrl-C.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar
from types import TracebackType
from typing import ParamSpec, TypeVar, final

_P = ParamSpec("_P")
_S = TypeVar("_S")
_T = TypeVar("_T")

# Of the pools that the current thread reads for, one within the other; each thread has a context of its own.
_STOPS: ContextVar[tuple[threading.Event, ...]] = ContextVar("vivit_export_stops", default=())


@final
class ReadingPool:
    """A pool of threads whose work is dropped when its context ends: what has begun stops at its next frame.

    So does that of a pool which is made in one of these threads.

    Args:
        num_threads: how many videos are read at once.
    """

    def __init__(self, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads)
        self._stop = threading.Event()
        self._stops = (*_STOPS.get(), self._stop)

    def submit(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Call ``work`` in a thread."""

        def run() -> _T:
            _STOPS.set(self._stops)
            return work(*args, **kwargs)

        return self._pool.submit(run)

    def __enter__(self) -> ReadingPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        try:
            self._pool.shutdown(cancel_futures=True)
        except BaseException:  # Ctrl-C once more; what the threads use must not be closed under their hands
            self._pool.shutdown(cancel_futures=True)
            raise


def stop_if_dropped() -> None:
    """Stop here if nobody waits for the result anymore; called once for each packet and frame.

    Raises:
        CancelledError: a pool that this thread reads for has ended.
    """
    for stop in _STOPS.get():
        if stop.is_set():
            raise CancelledError


def read_in_order(read: Callable[[_S], _T], sources: Iterable[_S], readers: int) -> Generator[_T, None, None]:
    """Read sources in threads, which end at their next frame if the iterator is closed.

    Args:
        read: reads one of them.
        sources: what there is to read.
        readers: how many are read at once.

    Yields:
        What ``read`` returns for each source, in their order. At most 2 * ``readers`` have been begun and not yielded.

    Raises:
        Exception: what ``read`` raises, in the place of its result.
    """
    with ReadingPool(readers) as pool:
        ahead: deque[Future[_T]] = deque()
        for source in sources:
            ahead.append(pool.submit(read, source))
            if len(ahead) == 2 * readers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

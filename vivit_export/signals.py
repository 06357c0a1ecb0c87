"""Handle Ctrl-C and similar signals: every request to end the process raises KeyboardInterrupt, once."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HANGING: set[threading.Thread] = set()


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and a closed terminal raise KeyboardInterrupt too, unless they are ignored (nohup)."""
    with _handled({n: _interrupt for n in _ENDING[1:] if signal.getsignal(n) == signal.SIG_DFL}):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore such signals for a moment, so that renames and removals are never half done."""
    with _handled(dict.fromkeys(_ENDING, signal.SIG_IGN)):
        yield


def ignore_from_now_on() -> None:
    """Ignore such signals until the process ends, which is soon: a second Ctrl-C changes nothing."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def die_with_parent() -> None:
    """Ask Linux to kill this process, a worker, as soon as the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def outlast(thread: threading.Thread) -> None:
    """Let no process end cleanly before a thread that hangs in a library, and that calls Python now and then.

    With Python gone, such a call is a segmentation fault. A program waits at its end until the thread is done;
    `leave_if_any_hangs` is for callers that cannot wait.
    """
    if not _HANGING:
        atexit.register(_wait)
    _HANGING.add(thread)


def leave_if_any_hangs(code: int) -> None:
    """End the process at once, without any cleanup of Python's, if a thread hangs; see `outlast`."""
    if any(thread.is_alive() for thread in _HANGING):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _wait() -> None:
    for thread in tuple(_HANGING):
        thread.join()


@contextmanager
def _handled(handlers: dict[signal.Signals, signal._HANDLER]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python lets only that one set handlers
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt

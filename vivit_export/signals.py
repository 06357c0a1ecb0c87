"""Handle Ctrl-C and similar signals: every request to end the process raises KeyboardInterrupt, once."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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

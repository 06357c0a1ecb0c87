from __future__ import annotations

import threading

import numpy as np
import pytest

from vivit_export.runtime.clips.live.sliding import LiveWindow
from vivit_export.runtime.clips.live.waiting import MOST_WAITING, WaitingWindows


def window(number: int) -> LiveWindow:
    return LiveWindow(float(number), number + 1.0, number, number + 1, np.zeros((1, 1, 1, 3), np.uint8), 0.0)


def test_the_oldest_are_dropped_and_counted() -> None:
    waiting = WaitingWindows("drop")
    for number in range(MOST_WAITING + 3):
        waiting.put(window(number))
    waiting.end(None)
    taken, dropped = waiting.take(3, 1.0) or ([], 0)
    assert ([w.first_frame for w in taken], dropped) == ([3, 4, 5], 3)
    taken, dropped = waiting.take(3, 1.0) or ([], 0)
    assert ([w.first_frame for w in taken], dropped) == ([6], 0)
    assert waiting.take(3, 1.0) is None


def test_the_reader_waits_and_nothing_is_dropped() -> None:
    waiting, found = WaitingWindows("wait"), []

    def fill() -> None:
        for number in range(50):
            waiting.put(window(number))
            assert len(waiting._windows) <= MOST_WAITING
        waiting.end(None)

    threading.Thread(target=fill, daemon=True).start()
    while (taken := waiting.take(2, 5.0)) is not None:
        assert not taken[1]
        found += [w.first_frame for w in taken[0]]
    assert found == [*range(50)]


def test_an_error_comes_after_the_windows_before_it() -> None:
    waiting = WaitingWindows("wait")
    waiting.put(window(0))
    waiting.end(ValueError("it"))
    assert waiting.take(9, 1.0) is not None
    with pytest.raises(ValueError, match="it"):
        waiting.take(9, 1.0)


def test_a_reader_that_waits_is_let_go() -> None:
    waiting = WaitingWindows("wait")

    def fill() -> None:
        for number in range(MOST_WAITING + 1):
            waiting.put(window(number))

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    assert waiting.take(0, 0.1) == ([], 0)
    waiting.abandon()
    thread.join(5)
    assert not thread.is_alive()

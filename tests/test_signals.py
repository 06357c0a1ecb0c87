"""What asks the process to end raises KeyboardInterrupt; handlers of others come back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from processes import is_running, wait_for_end

from vivit_export.signals import ended_like_ctrl_c, ignore_from_now_on, uninterrupted

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Those of a fresh Python, and those of the test runner again afterward."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in NUMBERS[1:]:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_raises_keyboard_interrupt(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), ended_like_ctrl_c():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_nohup_is_respected() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ended_like_ctrl_c():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("number", NUMBERS)
def test_none_is_heard_for_a_moment(number: signal.Signals) -> None:
    with ended_like_ctrl_c():
        before = signal.getsignal(number)
        with uninterrupted():
            signal.raise_signal(number)
        assert signal.getsignal(number) == before


def test_at_the_end_none_is_heard() -> None:
    ignore_from_now_on()
    for number in NUMBERS:
        signal.raise_signal(number)


def test_a_thread_changes_no_handler() -> None:
    seen = []

    def run() -> None:
        with ended_like_ctrl_c(), uninterrupted():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is of Linux")
def test_a_killed_parent_takes_the_child_along() -> None:
    child = (
        "import time; from vivit_export.signals import die_with_parent\ndie_with_parent(); print('up'); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"command = [sys.executable, '-u', '-c', {child!r}]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_running(pid)
        process.kill()
    wait_for_end(pid)

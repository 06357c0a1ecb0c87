from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from vivit_export.errors import ClipError
from vivit_export.runtime.clips.live.standard_input import StandardInput


def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"video")
    os.close(writing)
    given = StandardInput(threading.Event(), 5.0, reading)
    assert given.read(3) + given.read(9) + given.read(9) == b"video" and given.received == 5
    assert not hasattr(given, "seek")
    os.close(reading)


def test_a_file_can_be_searched(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"video")
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    given = StandardInput(threading.Event(), 5.0, descriptor)
    assert given.seek(2, 0) == 2 and given.read(9) == b"deo" and given.tell() == 5
    os.close(descriptor)


def test_a_silent_pipe_is_left() -> None:
    reading, writing = os.pipe()
    with pytest.raises(ClipError, match=r"standard input brought nothing for 0\.3 s"):
        StandardInput(threading.Event(), 0.3, reading).read(9)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    since = time.monotonic()
    assert StandardInput(stop, 60.0, reading).read(9) == b"" and time.monotonic() - since < 5
    os.close(reading)
    os.close(writing)


def test_a_closed_descriptor_is_said() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(ClipError, match="standard input cannot be read"):
        StandardInput(threading.Event(), 1.0, reading).read(9)

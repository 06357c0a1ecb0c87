"""Reading in a thread: lost connections, callers' own frames, and the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_servers import assert_same_windows, read_live, sends, stalls, tcp_server, transport_stream
from videos import contract, make_video

from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.runtime.clips.clip import read_clip
from vivit_export.runtime.clips.live.sliding import LiveWindow
from vivit_export.runtime.clips.windows import read_windows

WINDOW: dict[str, Any] = {"window": 0.4, "hop": 0.2}


@pytest.fixture(scope="module")
def shape() -> Contract:
    return contract(4)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "a.mp4", codec_options={"g": "10"})


@pytest.fixture(scope="module")
def stream(path: Path) -> bytes:
    return transport_stream(path)


def test_a_server_that_stalls_dies_and_comes_back(shape: Contract, path: Path, stream: bytes) -> None:
    """Windows start over with each connection, later by this machine's clock; then the server is gone for good."""
    notes: list[str] = []
    found: list[LiveWindow] = []
    with tcp_server(stalls(stream), sends(b""), sends(stream), sends(stream)) as address:
        windows = read_live(address, shape, timeout=1.0, reconnect=2.0, notes=notes, **WINDOW)
        with pytest.raises(ClipError, match=r"was lost, and could not be reached again within 2 s \(.*refused"):
            found.extend(windows)
    offline = list(read_windows(path, shape, **WINDOW))
    for number in range(3):
        part = [w for w in found if w.connection == number]
        assert [(w.first_frame, w.end_frame) for w in part] == [
            (w.first_frame, w.end_frame) for w in offline[: len(part)]
        ]
        for one, other in zip(part, offline, strict=True):
            np.testing.assert_array_equal(one.frames, other.frames)
    begins = [next(w.start_seconds for w in found if w.connection == number) for number in range(3)]
    assert begins[0] == 0 and 1.0 < begins[1] < begins[2]
    assert len(notes) == 3 and "sent nothing for 1 s" in notes[0] and notes[0].endswith("connecting again")
    assert "it ended the connection" in notes[1]


def test_the_first_end_is_the_end_without_reconnecting(shape: Contract, path: Path, stream: bytes) -> None:
    with tcp_server(sends(stream), sends(stream)) as address:
        assert_same_windows(list(read_live(address, shape, **WINDOW)), list(read_windows(path, shape, **WINDOW)))


def test_an_address_that_never_answered_is_not_tried_again(shape: Contract) -> None:
    since = time.monotonic()
    with pytest.raises(ClipError, match="Connection refused"):
        list(read_live("tcp://127.0.0.1:9", shape, reconnect=60.0))
    assert time.monotonic() - since < 5


def test_a_reader_is_let_go_at_once_though_the_server_stalls(shape: Contract, stream: bytes) -> None:
    with tcp_server(stalls(stream)) as address:
        windows = read_live(address, shape, timeout=20.0, **WINDOW)
        next(windows)
        since = time.monotonic()
        windows.close()
        assert time.monotonic() - since < 1


def test_the_thread_ends_with_the_timeout(shape: Contract, stream: bytes) -> None:
    with tcp_server(stalls(stream)) as address:
        windows = read_live(address, shape, timeout=1.0, **WINDOW)
        next(windows)
        windows.close()
        deadline = time.monotonic() + 10
        while any(thread.name == "vivit-live" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_windows_are_dropped_when_nobody_takes_them(shape: Contract, stream: bytes) -> None:
    with tcp_server(sends(stream)) as address:
        windows = read_live(address, shape, on_late="drop", window=0.2, hop=0.04)
        first = next(windows)
        time.sleep(1.5)
        rest = list(windows)
    assert len(rest) < 12 and rest[-1].end_frame == 40  # the newest are kept
    assert first.first_frame < rest[0].first_frame


# --- callers' own frames -----------------------------------------------------------------------


def test_frames_of_a_caller_give_the_windows_of_the_file(shape: Contract, path: Path) -> None:
    every = read_clip(path, contract(40))
    buffer = np.empty_like(every[0])

    def frames() -> Iterator[tuple[float, Any]]:
        for number, frame in enumerate(every):
            buffer[...] = frame  # as a camera does, which uses one buffer
            yield 7.0 + number / 25, buffer

    assert_same_windows(list(read_live(frames(), shape, **WINDOW)), list(read_windows(path, shape, **WINDOW)))


FRAME = np.zeros((48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([FRAME], r"frame 0 must be a pair \(time in seconds, frame\), got a uint8 array of shape \(48, 64, 3\)"),
        ([(0.0, FRAME.astype(np.float32))], r"frame 0 must be uint8 \(h, w, 3\) in RGB"),
        ([(0.0, FRAME), (1.0, FRAME[:9])], r"frame 1 is \(9, 64, 3\), but those before it are \(48, 64, 3\)"),
        ([(0.0, FRAME), (float("nan"), FRAME)], "frame 1 has the time nan; give seconds as a number"),
        ([(None, FRAME)], "frame 0 has the time None"),
        ([(1.0, FRAME), (0.5, FRAME)], r"frame 1 has the time 0\.5 s, which is before that of the last"),
        ([(n / 25, FRAME) for n in range(2)], "has 2 frames but the model takes 4"),
    ],
)
def test_frames_that_cannot_be_used(shape: Contract, items: list[Any], sentence: str) -> None:
    with pytest.raises(ClipError, match=sentence):
        list(read_live(items, shape))


def test_an_error_of_the_callers_own_is_passed_on(shape: Contract) -> None:
    def frames() -> Iterator[tuple[float, Any]]:
        yield 0.0, FRAME
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read_live(frames(), shape))


def test_no_frames_are_no_windows(shape: Contract) -> None:
    assert list(read_live([], shape)) == []

"""Readers in threads end between two frames once nobody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from videos import contract, make_video

from vivit_export.errors import ClipError
from vivit_export.runtime import read_clip
from vivit_export.runtime.clips.video import container, index, seek
from vivit_export.runtime.clips.video.index import Timeline, read_index, timeline_of
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.stopping import ReadingPool, read_in_order, stop_if_dropped


def read_timeline(path: Path) -> Timeline:
    return timeline_of(read_index(path))


def test_work_that_is_waited_for_is_not_stopped(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4")
    with ReadingPool(2) as pool:
        clips = [pool.submit(read_clip, path, contract(4)) for _ in range(3)]
        assert all(clip.result().shape == (4, 48, 64, 3) for clip in clips)
    stop_if_dropped()  # this thread reads for no pool


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("frames.mp4", lambda path: read_clip(path, contract(4))),  # packets, then frames
        ("hidden.webm", read_timeline),  # frames, for their times alone
    ],
)
def test_leaving_the_pool_stops_what_has_begun_and_drops_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, read: Callable[[Path], Any]
) -> None:
    """Each look at the stop sign takes so long that a whole video would take eight seconds."""
    path = make_video(tmp_path / name, codec="libvpx" if name.endswith("webm") else "libx264")
    looks = threading.Semaphore(0)

    def slow() -> None:
        looks.release()
        stop_if_dropped()
        time.sleep(0.1)
        seen.append(1)

    seen: list[int] = []
    for module in (container, index, seek):
        monkeypatch.setattr(module, "stop_if_dropped", slow)
    reading: list[Future[Any]] = []
    with ReadingPool(1) as pool:
        reading += [pool.submit(read, path), pool.submit(read, path)]
        assert looks.acquire(timeout=30)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    with pytest.raises(CancelledError):
        reading[0].result()
    assert reading[1].cancelled()
    assert len(seen) < 40  # frames


def test_every_loop_over_packets_and_frames_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, looks = make_video(tmp_path / "a.mp4", 40), []
    for module in (container, index, seek):
        monkeypatch.setattr(module, "stop_if_dropped", lambda: looks.append(1))
    for reading in (Reading("full"), AS_NEEDED):  # one group of pictures, which the last frame needs
        looks.clear()
        read_clip(path, contract(4), reading)
        assert len(looks) >= 75
    looks.clear()
    read_clip(path, contract(4), Reading("full"))
    assert len(looks) >= 80  # 40 packets, 40 frames
    looks.clear()
    read_timeline(make_video(tmp_path / "a.webm", 40, codec="libvpx"))
    assert len(looks) >= 80


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_results_keep_their_order_and_few_are_held(readers: int) -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        time.sleep(0.003 * (number % 3))
        return number * number

    for place, result in enumerate(read_in_order(read, range(30), readers)):
        assert result == place * place
        assert len(begun) - place <= 2 * readers
    assert sorted(begun) == list(range(30))


def test_several_are_read_at_once() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert len(list(read_in_order(lambda _: meeting.wait(), range(6), 3))) == 6


def test_an_error_comes_in_its_place() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise ClipError("2 is broken")
        return number

    results = read_in_order(read, range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ClipError, match="2 is broken"):
        next(results)


def test_what_is_being_read_stops_when_nobody_takes_the_rest() -> None:
    def read(number: int) -> int:
        while number:
            stop_if_dropped()
            time.sleep(0.001)
        return number

    results = read_in_order(read, range(100), 2)
    assert next(results) == 0
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 10


def test_a_pool_in_a_pool_stops_with_it() -> None:
    begun, stopped = threading.Barrier(3, timeout=30), list[int]()

    def read(number: int) -> None:
        begun.wait()
        try:
            while True:
                stop_if_dropped()
                time.sleep(0.001)
        except CancelledError:
            stopped.append(number)
            raise

    with ReadingPool(1) as pool:
        waiting = pool.submit(lambda: list(read_in_order(read, range(2), 2)))
        begun.wait()
    assert isinstance(waiting.exception(), CancelledError)
    assert sorted(stopped) == [0, 1]


def test_ctrl_c_while_threads_are_ending_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, interrupted = list[int](), list[int]()

    def read() -> None:
        try:
            while True:
                stop_if_dropped()
                time.sleep(0.001)
        finally:
            ended.append(1)

    shutdown = ThreadPoolExecutor.shutdown

    def interrupt_once(*args: Any, **given: Any) -> None:
        if not interrupted:
            interrupted.append(1)
            raise KeyboardInterrupt
        shutdown(*args, **given)

    def begin() -> None:
        with ReadingPool(1) as pool:
            pool.submit(read)
            monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupt_once)

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert ended == interrupted == [1]

"""Readers in threads end between two frames once nobody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest
from videos import contract, make_video

from vivit_export.runtime import read_clip
from vivit_export.runtime.clips.video import container, index, seek
from vivit_export.runtime.clips.video.index import Timeline, read_index, timeline_of
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.stopping import ReadingPool, stop_if_dropped


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

"""Reading in processes: the rows, faults and remarks of one process, and nothing that stays behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import children_of, wait_for_end

from vivit_export import demo
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.errors import ClipError
from vivit_export.runtime import VideoFault, predict_videos
from vivit_export.runtime.clips import processes
from vivit_export.runtime.clips.processes import ReaderProcesses, in_this_process, view_reader
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.stopping import ReadingPool
from vivit_export.runtime.session.session import Session

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")

SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "crops": ("uint8", (8, 64, 64, 3)),
    "pixels": ("float32", (8, 3, 64, 64)),
}
VIDEOS = sorted(demo.clips_path().glob("*.mp4"))


def contract(mode: Any = "crops", **clip: Any) -> Contract:
    dtype, shape = SHAPES[mode]
    source = Tensor("clips", dtype, ("batch", *shape))
    io = IO(mode, (source,), (Tensor("logits", "float32", ("batch", 2)),))
    return Contract(
        Clip(8, 64, 64, (2, 8, 8), **clip), Preprocess(shortest_edge=64, crop_size=(64, 64)), io, ("a", "b")
    )


def rows_of(wanted: Contract, views: int = 1) -> np.ndarray:
    source = wanted.io.inputs[0]
    return np.zeros((views, *map(int, source.shape[1:])), source.dtype)


Started = Callable[[], int]


@pytest.fixture
def started() -> Iterator[Started]:
    """How many processes a test has started that still run; in the end none does, and no file is open that was not."""
    gc.collect()
    files, others = len(os.listdir("/proc/self/fd")), children_of()
    yield lambda: len(children_of() - others)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files
    assert not children_of() - others


def patched(monkeypatch: pytest.MonkeyPatch, read: str) -> None:
    """Have each process read with a function ``read(rows, path, *_)`` of its own."""
    module = "vivit_export.runtime.clips.process_worker"
    stop = "from vivit_export.runtime.clips.video.stopping import stop_if_dropped"
    lines = ("import os, time", stop, f"import {module} as worker", "usual = worker.read_views_to", read)
    code = "\n".join((*lines, "worker.read_views_to = read", ""))
    first, mark, last = processes._WORKER.partition("from vivit_export")
    assert mark
    monkeypatch.setattr(processes, "_WORKER", f"{first}{code}{mark}{last}")


@pytest.mark.parametrize("mode", SHAPES)
def test_rows_and_remarks_are_those_of_one_process(started: Started, tmp_path: Path, mode: str) -> None:
    wanted = contract(mode, sampling="stride", stride=1, views=(2, 1 if mode == "pixels" else 3))
    views = wanted.clip.views[0] * wanted.clip.views[1]
    (tmp_path / "empty.mp4").touch()
    files = [*VIDEOS, tmp_path / "empty.mp4", tmp_path / "n\udcffowhere.mp4"]
    remarks: list[tuple[Path, str]] = []
    reading = Reading(note=lambda path, why: remarks.append((path, why)))
    with ReaderProcesses(wanted, reading) as reader:
        here = in_this_process(wanted, reading, 1)
        for path in files:
            results: list[Any] = []
            for read in (here, reader.read):
                rows, said = rows_of(wanted, views), len(remarks)
                try:
                    read(path, rows)
                    results.append((rows.tobytes(), remarks[said:]))
                except ClipError as e:
                    results.append((e.sentence, remarks[said:]))
            assert results[0] == results[1], path
        assert started() == 1


def test_many_videos_are_predicted_in_order_each_fault_in_its_place(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Engine:
        name, details, batches = "sums", "", (1, 4)

        def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
            sums = batch.reshape(len(batch), 2, -1).sum(axis=2, dtype=np.float32)
            return {"logits": sums}

        def close(self) -> None:
            """Nothing is open."""

    (tmp_path / "empty.mp4").touch()
    files = [*VIDEOS, tmp_path / "empty.mp4"] * 8
    results = []
    for worth in (len(files), 1):  # in threads, and in processes
        monkeypatch.setattr(processes, "_WORTH_VIDEOS", worth)
        found = list(predict_videos(Session(contract(), Engine(), {}), files, readers=3))
        assert [result.path for result in found] == files
        results.append(
            [str(r.error) if isinstance(r, VideoFault) else np.asarray(r.prediction.logits).tolist() for r in found]
        )
    assert results[0] == results[1]
    assert started() == 0


def test_a_process_that_ends_is_the_fault_of_one_video(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = VIDEOS[1]
    patched(
        monkeypatch,
        f"def read(rows, path, *rest):\n    os.abort() if path.name == {bad.name!r} else usual(rows, path, *rest)",
    )
    wanted = contract()
    with ReaderProcesses(wanted, AS_NEEDED) as reader:
        for path in VIDEOS[:4]:
            expected, rows = rows_of(wanted), rows_of(wanted)
            if path == bad:
                with pytest.raises(ClipError) as raised:
                    reader.read(path, rows)
                assert str(raised.value) == (
                    f"{path} cannot be read: its reader was ended by SIGABRT; convert the video, or lower readers if "
                    "memory ran out"
                )
                continue
            reader.read(path, rows)
            in_this_process(wanted, AS_NEEDED, 1)(path, expected)
            assert rows.tobytes() == expected.tobytes()


def test_what_is_no_fault_of_a_video_is_raised(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, "def read(rows, path, *rest):\n    print('not an answer')\n    raise KeyError('a bug')")
    with ReaderProcesses(contract(), AS_NEEDED) as reader:
        for _ in range(2):  # the process goes on
            with pytest.raises(RuntimeError, match="KeyError: 'a bug'"):
                reader.read(VIDEOS[0], rows_of(contract()))


@pytest.mark.parametrize("program", ["/nonexistent", "/bin/false", "/bin/echo", None, "hangs"])
def test_without_an_interpreter_videos_are_read_here(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    """The interpreter of a program that embeds Python is that program."""
    if program == "hangs":
        (tmp_path / "hangs").write_text("#!/bin/sh\nexec sleep 600\n")
        (tmp_path / "hangs").chmod(0o700)
        program = str(tmp_path / "hangs")
        monkeypatch.setattr(processes, "_START_SECONDS", 0.5)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", program)
    wanted = contract()
    with ReaderProcesses(wanted, AS_NEEDED) as reader:
        for path in VIDEOS[:2]:
            rows, expected = rows_of(wanted), rows_of(wanted)
            reader.read(path, rows)
            in_this_process(wanted, AS_NEEDED, 1)(path, expected)
            assert rows.tobytes() == expected.tobytes()
    assert started() == 0


def test_what_nobody_waits_for_is_dropped_at_once(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, "def read(rows, path, *rest):\n    time.sleep(600)")
    with ReaderProcesses(contract(), AS_NEEDED) as reader:
        with ReadingPool(2) as pool:
            futures = [pool.submit(reader.read, VIDEOS[0], rows_of(contract())) for _ in range(2)]
            deadline = time.monotonic() + 60
            while started() < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            start = time.monotonic()
        assert time.monotonic() - start < 5
        for future in futures:
            with pytest.raises(CancelledError):
                future.result()
    assert started() == 0


def test_processes_end_with_the_one_that_started_them_also_amid_a_video(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"""
import sys, threading, time
sys.path[:] = {[str(Path(__file__).parent), *sys.path]!r}
from test_processes import *
begins = f"open({str(begun)!r}, 'w').close()"
with pytest.MonkeyPatch.context() as patch:
    patched(patch, f"def read(rows, path, *rest):\\n    {{begins}}\\n    while True:\\n        stop_if_dropped()")
    reader = ReaderProcesses(contract(), AS_NEEDED)
    threading.Thread(target=reader.read, args=(VIDEOS[0], rows_of(contract())), daemon=True).start()
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        deadline = time.monotonic() + 60
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        (child,) = children_of(parent.pid)
        parent.kill()
    wait_for_end(child)


def test_threads_share_no_process(started: Started) -> None:
    wanted = contract()
    expected = {}
    for path in VIDEOS:
        expected[path] = rows_of(wanted)
        in_this_process(wanted, AS_NEEDED, 1)(path, expected[path])
    with ReaderProcesses(wanted, AS_NEEDED) as reader, ThreadPoolExecutor(4) as pool:

        def read(path: Path) -> bool:
            rows = rows_of(wanted)
            reader.read(path, rows)
            return rows.tobytes() == expected[path].tobytes()

        assert all(pool.map(read, VIDEOS * 10))
        assert 1 <= started() <= 4


@pytest.mark.parametrize(
    ("readers", "videos", "apart"), [(1, 1000, False), (2, 127, False), (2, 128, True), (16, 1000, False)]
)
def test_processes_are_for_many_videos_and_several_readers(
    monkeypatch: pytest.MonkeyPatch, readers: int, videos: int, apart: bool
) -> None:
    def is_apart() -> bool:
        with view_reader(contract(), AS_NEEDED, readers, videos) as read:
            return getattr(read, "__self__", None).__class__ is ReaderProcesses

    assert is_apart() is apart
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert is_apart() is False


def test_a_contract_beyond_the_length_of_a_command_arrives(started: Started) -> None:
    wanted = contract()
    io = replace(wanted.io, outputs=(Tensor("logits", "float32", ("batch", 5000)),))
    wanted = replace(wanted, io=io, labels=tuple(f"{number} " + "é" * 100 for number in range(5000)))
    with ReaderProcesses(wanted, AS_NEEDED) as reader:
        reader.read(VIDEOS[0], rows_of(wanted))
        assert started() == 1

"""Read videos in processes of their own, so that readers do not wait for each other.

Threads of one process run Python in turns, and a reader comes back to Python a thousand times in a short video. The
more threads there are, the more they wait for each other; processes do not (benchmarks/throughput.py, section
``workers``). A thread here sends the path of a video to a process, waits, and copies what that wrote to memory that
both share. For normalized pixels that is the crops, a quarter of the bytes, which are normalized on the way.

A process that comes to an end over a video, by a fault of a decoder, is replaced, and that is the fault of this one
video.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import spawn
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np

from vivit_export.contract import Contract
from vivit_export.errors import ClipError, option
from vivit_export.records import JsonObject, to_json
from vivit_export.runtime.clips.ahead import share_cores
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.clips.video.stopping import stop_if_dropped
from vivit_export.runtime.clips.views import Rows, num_views, read_views_to

_WORTH_VIDEOS = 64
"""Videos per process that make up for its start: that takes 0.35 s of a core, and on two cores each short video then
saves 5 ms; on more, where more threads wait, it saves more."""

_START_SECONDS = 30.0
_LOOK_MILLISECONDS = 100  # until a thread that waits looks whether anybody still wants the result

# glibc would return the memory of each video's frames to the system, and take it back for the next: 2 % of the time.
_KEEPING_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}

# As `multiprocessing` starts its own: with the caller's modules, wherever those are from.
_WORKER = """import json, sys
job = json.loads(sys.stdin.buffer.readline())
sys.path[:] = job["path"]
from vivit_export.runtime.clips.process_worker import main
main(job)"""


ReadViews = Callable[[Path, Rows], None]
"""Reads the views of a video to their rows of a batch; see `vivit_export.runtime.clips.views.read_views_to`."""


def in_this_process(contract: Contract, reading: Reading, readers: int) -> ReadViews:
    """Return what reads in the thread that calls it.

    Args:
        contract: says which frames and crops.
        reading: how much of each video is decoded.
        readers: how many threads call it, which share the cores.
    """
    reading = share_cores(reading, readers)
    return lambda path, rows: read_views_to(rows, path, contract, reading)


@contextmanager
def view_reader(contract: Contract, reading: Reading, readers: int, videos: int) -> Iterator[ReadViews]:
    """Lend what reads: processes where several readers have many videos each, else `in_this_process`.

    Args:
        contract: as for `in_this_process`, as ``reading`` and ``readers``.
        reading: see there.
        readers: see there.
        videos: how many there are to read.
    """
    can_share = hasattr(os, "memfd_create") and not getattr(sys, "frozen", False)
    if not can_share or readers < 2 or videos < _WORTH_VIDEOS * readers:
        yield in_this_process(contract, reading, readers)
        return
    with ReaderProcesses(contract, share_cores(reading, readers)) as processes:
        yield processes.read


@final
class ReaderProcesses:
    """Processes that read videos: one for each thread that calls, started at its first call.

    Where none can be started, as in a program whose interpreter is not a file, videos are read in the calling thread.

    Args:
        contract: says which frames and crops.
        reading: how much of each video is decoded.
    """

    def __init__(self, contract: Contract, reading: Reading) -> None:
        self._contract, self._reading = contract, reading
        self._preprocessor = None
        if contract.io.mode == "pixels":
            self._preprocessor = Preprocessor(contract.clip, contract.preprocess)
        self._idle: deque[_Reader] = deque()
        self._started: list[_Reader] = []
        self._can_start = True

    def read(self, path: Path, rows: Rows) -> None:
        """Do `read_views_to`.

        Args:
            path: a video.
            rows: see there.

        Raises:
            ClipError: as `read_views_to`; or the process came to an end over this video.
            RuntimeError: whatever else `read_views_to` raises there.
            CancelledError: nobody waits for the result anymore.
        """
        reader = self._take()
        if reader is None:
            read_views_to(rows, path, self._contract, self._reading)
            return
        try:
            answer = reader.ask(path)
        except EOFError:
            raise ClipError(
                f"{path} cannot be read: its reader was ended by {reader.end()}; convert the video, or lower "
                f"{option('readers')} if memory ran out"
            ) from None
        except BaseException:
            reader.end()
            raise
        for why in answer["notes"]:
            self._reading.note(path, why)
        found = answer["found"]
        if found == "rows":
            self._pass_on(reader.rows, rows)
        self._idle.append(reader)
        if found == "fault":
            raise ClipError(answer["why"])
        if found == "failure":
            raise RuntimeError(f"{path}: {answer['why']}")

    def _pass_on(self, read: Rows, rows: Rows) -> None:
        if self._preprocessor is None:
            rows[...] = read
        else:
            self._preprocessor.normalize(read, rows)

    def _take(self) -> _Reader | None:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        if self._can_start:
            try:
                reader = _Reader(self._contract, self._reading)
            except (OSError, TypeError):  # no such program, none is known, or a contract that is not JSON
                self._can_start = False
                return None
            self._started.append(reader)
            if reader.is_ready():
                return reader
            reader.end()
            self._can_start = False
        return None

    def __enter__(self) -> ReaderProcesses:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for reader in self._started:
            reader.end()


class _Reader:
    """One process, and the memory that it writes to.

    Attributes:
        rows: of one video, uint8, as `vivit_export.runtime.clips.views.read_views` returns them.
    """

    def __init__(self, contract: Contract, reading: Reading) -> None:
        clip = contract.clip
        height, width = contract.io.frame_size or (clip.height, clip.width)
        shape = (num_views(contract), clip.num_frames, height, width, 3)
        size = int(np.prod(shape))
        descriptor = os.memfd_create("vivit-clips")  # not in /dev/shm, which a container has 64 MB of
        try:
            job = {
                "path": [entry for entry in sys.path if isinstance(entry, str)],
                "memory": descriptor,
                "shape": shape,
                "contract": to_json(contract),
                "decode": reading.decode,
                "threads": reading.threads,
            }
            self._first = json.dumps(job)
            os.ftruncate(descriptor, size)
            self.rows: Rows = np.ndarray(shape, np.uint8, mmap.mmap(descriptor, size))
            self._child = subprocess.Popen(
                [spawn.get_executable(), "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, pass_fds=[descriptor], start_new_session=True,
                env={**_KEEPING_MEMORY, **os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
        finally:
            os.close(descriptor)
        self._unread = b""

    def is_ready(self) -> bool:
        """Whether the process can read."""
        try:
            return self._exchange(self._first, time.monotonic() + _START_SECONDS) == {"ready": True}
        except (EOFError, ValueError, TimeoutError):
            return False

    def ask(self, path: Path) -> JsonObject:
        """Have a video read.

        Returns:
            ``notes``: why it was decoded in full; ``found``: ``rows``, a ``fault`` of the video, or another
            ``failure``; and ``why`` it is one.

        Raises:
            EOFError: the process came to an end.
            CancelledError: nobody waits for the result anymore.
        """
        return self._exchange(json.dumps(str(path)))

    def _exchange(self, request: str, until: float = float("inf")) -> JsonObject:
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(request.encode() + b"\n")
            self._child.stdin.flush()
        except OSError as e:
            raise EOFError from e
        answers = select.poll()
        answers.register(self._child.stdout, select.POLLIN)
        while b"\n" not in self._unread:
            stop_if_dropped()
            if time.monotonic() > until:
                raise TimeoutError
            if answers.poll(_LOOK_MILLISECONDS):
                data = os.read(self._child.stdout.fileno(), 1 << 16)
                if not data:
                    raise EOFError
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: JsonObject = json.loads(line)
        return answer

    def end(self) -> str:
        """End the process, if it has not ended; return by what it did."""
        self._child.kill()
        code = self._child.wait()
        self.rows = self.rows[:0].copy()  # the memory goes too, of which nobody else has a view
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not sent yet
                    pipe.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

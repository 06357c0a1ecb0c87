"""Clips in memory that another process sees: what is written is what lies there, and nothing stays behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vivit_export.errors import EnvironmentFault
from vivit_export.runtime.session.triton.shared_memory import Region

BLOCKS = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not BLOCKS.is_dir(), reason="shared memory is not a folder here")


@pytest.mark.parametrize("batch", [np.arange(24, dtype=np.uint8), np.linspace(-1, 1, 6, dtype=np.float32)], ids=str)
def test_the_bytes_of_a_batch_lie_at_the_beginning(batch: np.ndarray) -> None:
    region = Region(40)
    try:
        block = BLOCKS / region.name
        assert region.key == f"/{region.name}" and block.stat().st_size == 40 == region.size_bytes
        region.write(batch.reshape(2, -1))
        assert block.read_bytes()[: batch.nbytes] == batch.tobytes()
        region.write(batch[:1])
        assert block.read_bytes()[: batch.nbytes] == batch.tobytes()
    finally:
        region.free()
    assert not block.exists()


def test_a_batch_that_does_not_fit_is_refused() -> None:
    region = Region(8)
    try:
        with pytest.raises(TypeError, match="buffer is too small"):
            region.write(np.zeros(9, np.uint8))
    finally:
        region.free()


def test_regions_do_not_share_a_block() -> None:
    first, second = Region(4), Region(4)
    first.write(np.full(4, 1, np.uint8))
    second.write(np.full(4, 2, np.uint8))
    assert (BLOCKS / first.name).read_bytes() == b"\1" * 4
    first.free()
    assert (BLOCKS / second.name).read_bytes() == b"\2" * 4
    second.free()


def test_a_region_that_is_freed_while_it_is_written_to_goes_all_the_same() -> None:
    region, written, freed = Region(4), threading.Event(), threading.Event()

    def hold() -> None:
        with memoryview(region._memory.buf or b""):
            written.set()
            freed.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    written.wait(10)
    region.free()
    assert not (BLOCKS / region.name).exists()
    freed.set()
    thread.join()


def test_a_process_that_dies_leaves_no_block() -> None:
    code = """
import os, signal
from vivit_export.errors import EnvironmentFault
from vivit_export.runtime.session.triton.shared_memory import Region
print(Region(4).name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == -9 and done.stdout.startswith("vivit-")
    assert not (BLOCKS / done.stdout.strip()).exists()  # its resource tracker, which holds stdout open till it ends


WRITE = """
import numpy as np
from vivit_export.errors import EnvironmentFault
from vivit_export.runtime.session.triton.shared_memory import Region

region = Region(10_000_000)  # more than there is: what is not written to takes nothing
for size in (40_000, 20_000, 60_000, 200_000):
    try:
        region.write(np.ones(size, np.uint8))
        print(size)
    except EnvironmentFault as e:
        print(e.exit_code, e)
region.free()
"""
PRIVATE = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'


def test_memory_that_is_not_there_is_a_sentence_and_no_bus_error() -> None:
    """With 64 KiB in /dev/shm, as containers have 64 MiB."""
    alone = ["unshare", "--mount", "sh", "-c", PRIVATE, "sh"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a file system")
    command = [*alone, sys.executable, "-c", WRITE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    *written, refused = done.stdout.splitlines()
    assert written == ["40000", "20000", "60000"]
    assert refused == (
        "7 /dev/shm has 4096 bytes free, but 200000 are needed to pass a batch in shared memory; start the container "
        "with a larger --shm-size, or drop shared_memory=yes from the address"
    )


def refusing(reason: int) -> Callable[..., None]:
    def call(*_args: object, **_options: object) -> None:
        raise OSError(reason, os.strerror(reason))

    return call


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (errno.ENOSPC, "but 9 are needed to pass a batch .* larger --shm-size, or drop shared_memory=yes"),
        (errno.EACCES, r"^/dev/shm cannot be used for shared memory \(Permission denied\); drop shared_memory=yes"),
    ],
)
def test_a_system_that_gives_no_memory(monkeypatch: pytest.MonkeyPatch, reason: int, said: str) -> None:
    region = Region(9)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", refusing(reason))
            with pytest.raises(EnvironmentFault, match=said):
                region.write(np.zeros(9, np.uint8))
        region.write(np.ones(9, np.uint8))  # the next attempt may succeed
        assert (BLOCKS / region.name).read_bytes() == b"\1" * 9
    finally:
        region.free()
    monkeypatch.setattr("vivit_export.runtime.session.triton.shared_memory.SharedMemory", refusing(reason))
    with pytest.raises(EnvironmentFault, match=said):
        Region(9)

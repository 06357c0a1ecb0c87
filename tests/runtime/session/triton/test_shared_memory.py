"""Clips in memory that another process sees: what is written is what lies there, and nothing stays behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from vivit_export.runtime.session.triton.shared_memory import Region

BLOCKS = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not BLOCKS.is_dir(), reason="shared memory is no folder here")


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
from vivit_export.runtime.session.triton.shared_memory import Region
print(Region(4).name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == -9 and done.stdout.startswith("vivit-")
    assert not (BLOCKS / done.stdout.strip()).exists()  # its resource tracker, which holds stdout open till it ends

"""Memory shared by a client and a server on one machine: clips are written there instead of being sent."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.errors import EnvironmentFault

_FOLDER = Path("/dev/shm")  # where Linux keeps shared memory, see shm_overview(7)


class Region:
    """One block in ``/dev/shm``, for one request at a time.

    A block has its full size from the beginning, but takes memory only as far as it was written to. If the process
    dies, Python's resource tracker removes the block.

    Attributes:
        name: its name on the server.
        key: its name in the operating system.
        size_bytes: its size.
        is_registered: whether the server knows it.

    Raises:
        EnvironmentFault: this machine has no shared memory, or no room for another block.
    """

    def __init__(self, size_bytes: int) -> None:
        try:
            self._memory = SharedMemory(f"vivit-{uuid.uuid4().hex}", create=True, size=size_bytes)
        except OSError as e:
            raise _fault(e, size_bytes) from e
        self._taken_bytes = 0
        self.name = self._memory.name
        self.key = f"/{self._memory.name}"
        self.size_bytes = size_bytes
        self.is_registered = False

    def write(self, batch: npt.NDArray[Any]) -> None:
        """Copy a batch to the beginning of the block.

        Raises:
            EnvironmentFault: there is no room for it in shared memory.
        """
        view: npt.NDArray[Any] = np.ndarray(batch.shape, batch.dtype, buffer=self._memory.buf)
        self._take(batch.nbytes)
        np.copyto(view, batch, casting="no")

    def free(self) -> None:
        """Release the block; processes that have it mapped may continue to use it."""
        self._memory.unlink()
        with contextlib.suppress(BufferError):  # a thread still writes to it
            self._memory.close()

    def _take(self, size_bytes: int) -> None:
        """Take memory for this number of bytes now: writing where there is none would kill the process (SIGBUS)."""
        if size_bytes <= self._taken_bytes:
            return
        try:
            descriptor = os.open(_FOLDER / self.name, os.O_RDWR)
            try:
                os.posix_fallocate(descriptor, 0, size_bytes)
            finally:
                os.close(descriptor)
        except OSError as e:
            raise _fault(e, size_bytes) from e
        self._taken_bytes = size_bytes


def _fault(error: OSError, size_bytes: int) -> EnvironmentFault:
    """Say why there is no shared memory."""
    if error.errno != errno.ENOSPC:
        return EnvironmentFault(
            f"{_FOLDER} cannot be used for shared memory ({error.strerror}); drop shared_memory=yes from the address"
        )
    free = shutil.disk_usage(_FOLDER).free
    return EnvironmentFault(
        f"{_FOLDER} has {free} bytes free, but {size_bytes} are needed to pass a batch in shared memory; start the "
        "container with a larger --shm-size, or drop shared_memory=yes from the address"
    )

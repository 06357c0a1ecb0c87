"""Memory shared by a client and a server on one machine: clips are written there instead of being sent."""

from __future__ import annotations

import contextlib
import uuid
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import numpy.typing as npt


class Region:
    """One block in ``/dev/shm``, for one request at a time.

    If the process dies, Python's resource tracker removes the block.

    Attributes:
        name: its name on the server.
        key: its name in the operating system.
        size_bytes: its size.
        is_registered: whether the server knows it.
    """

    def __init__(self, size_bytes: int) -> None:
        self._memory = SharedMemory(f"vivit-{uuid.uuid4().hex}", create=True, size=size_bytes)
        self.name = self._memory.name
        self.key = f"/{self._memory.name}"
        self.size_bytes = size_bytes
        self.is_registered = False

    def write(self, batch: npt.NDArray[Any]) -> None:
        """Copy a batch to the beginning of the block."""
        view: npt.NDArray[Any] = np.ndarray(batch.shape, batch.dtype, buffer=self._memory.buf)
        np.copyto(view, batch, casting="no")

    def free(self) -> None:
        """Release the block; processes that have it mapped may continue to use it."""
        self._memory.unlink()
        with contextlib.suppress(BufferError):  # a thread still writes to it
            self._memory.close()

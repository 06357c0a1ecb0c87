"""Keep other processes of this package from changing a folder that is replaced as a whole.

The lock is advisory and lies on the folder itself (``flock``), so it leaves no file behind and ends with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vivit_export.errors import OutputError

_SECONDS_WITHOUT_FOLDER = 1.0  # a folder that is being replaced is missing between two renames


@contextmanager
def locked(folder: Path, note: Callable[[str], object]) -> Iterator[None]:
    """Hold the lock of a folder; wait for whoever holds it. Where the file system has no locks, hold nothing.

    Args:
        folder: it may be replaced while this waits; then the new one is locked.
        note: told once if this has to wait.

    Raises:
        OutputError: there is no such folder.
    """
    while True:
        try:
            handle = _open(folder)
        except OSError as e:
            raise OutputError(f"{folder} cannot be changed: {e.strerror}; was it moved meanwhile?") from e
        try:
            with contextlib.suppress(OSError):  # such as some network file systems
                _lock(handle, folder, note)
            if _is_still(handle, folder):
                yield
                return
        finally:
            os.close(handle)


@contextmanager
def locked_if_there(folder: Path, note: Callable[[str], object]) -> Iterator[None]:
    """Hold the lock of a folder if it exists; see `locked`."""
    with locked(folder, note) if folder.is_dir() else contextlib.nullcontext():
        yield


def _open(folder: Path) -> int:
    deadline = time.monotonic() + _SECONDS_WITHOUT_FOLDER
    while True:
        try:
            return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _lock(handle: int, folder: Path, note: Callable[[str], object]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note(f"waits for another process that changes {folder}")
        fcntl.flock(handle, fcntl.LOCK_EX)


def _is_still(handle: int, folder: Path) -> bool:
    """Whether the path still leads to the folder that was opened."""
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False

"""Renames that happen as one step or not at all, which Python's standard library lacks (Linux: ``renameat2``)."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100  # linux/fcntl.h
_NO_REPLACE, _EXCHANGE = 1, 2  # linux/fs.h
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # by the kernel or by the file system


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change places: whoever looks finds one of them at each, at any time.

    Returns:
        False, with nothing changed, where the file system cannot do that.

    Raises:
        OSError: one of them does not exist, or they may not be renamed.
    """
    return _rename(one, other, _EXCHANGE)


def rename_to_new(source: Path, target: Path) -> None:
    """Rename a file to a name that is not taken, even if somebody takes it at this moment.

    Raises:
        FileExistsError: it is taken. Where the file system cannot tell, the file is replaced.
        OSError: it cannot be renamed.
    """
    if not _rename(source, target, _NO_REPLACE):
        os.replace(source, target)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk; a file system that cannot do that is left alone.

    Raises:
        OSError: the disk is full or broken.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Do the same for a folder and everything in it.

    Raises:
        OSError: the disk is full or broken.
    """
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            sync(path)


def _rename(source: Path, target: Path, flag: int) -> bool:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))

"""Write a file completely or not at all, and read what others wrote.

A file is written under a temporary name and then renamed. What a killed process left is removed by the next one that
writes there (`vivit_export.leftovers`). `vivit_export.folders` does the same with a whole folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vivit_export import atomic, leftovers
from vivit_export.errors import OutputError, UsageError, option

HUB_SCHEME = "hf://"
"""How an address of the hub begins, which is not a path."""


@contextmanager
def replacing(path: Path, *, new: bool = False) -> Iterator[Path]:
    """Yield an empty file beside ``path`` to write into; rename it to ``path`` on success, remove it on any failure.

    Args:
        path: the file.
        new: it must not exist at the end either.

    Raises:
        FileExistsError: it was to be new.
        OSError: it cannot be renamed.
    """
    with leftovers.held_file(path) as part:
        try:
            yield part
            (atomic.rename_to_new if new else os.replace)(part, path)
        except BaseException:
            with contextlib.suppress(OSError):  # a read-only file system refuses even where there is nothing to remove
                part.unlink()
            raise


def check_file(path: Path, force: bool) -> None:
    """Refuse a file, named by the user, that must not or cannot be written; call it before the work.

    With ``force``, a regular file may be replaced. Nothing else ever is: no folder, device, pipe or socket. A
    symbolic link stands for what it leads to.

    Raises:
        OutputError: the path must not be replaced, has no folder, or its folder is not writable.
    """
    with refusals(path, any_reason=True):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None and not stat.S_ISREG(mode):
            raise OutputError(f"{path} is {_kind(mode)}, not a file that can be replaced; choose another name")
        if mode is not None and not force:
            raise OutputError(f"{path} exists; pass {option('force')} to replace that file, or choose another name")
        place = Path(os.path.realpath(path))
        folder = place.parent
        if not folder.exists():
            raise OutputError(f"{path} cannot be written: there is no such folder; create it first")
        require_writable(path, folder)
        leftovers.require_room(place)


@contextmanager
def writing_file(path: Path, *, force: bool, note: Callable[[str], object] = str) -> Iterator[Path]:
    """Yield an empty file to write what the user named; rename it into place on success.

    Args:
        path: where to put the file; a symbolic link is followed.
        force: replace an existing file.
        note: told of what an interrupted run left of this file, which is removed.

    Raises:
        OutputError: see `check_file`; or the disk is full, or the folder cannot be written.
    """
    check_file(path, force)
    place = Path(os.path.realpath(path))
    leftovers.remove_leftovers(place, note)
    with refusals(path, any_reason=True):
        try:
            with replacing(place, new=not force) as part:
                yield part
                check_file(path, force)  # again: the work took a while
                atomic.sync(part)  # before what it replaces is gone
        except FileExistsError:
            check_file(path, force)  # which has a sentence for it
            raise


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def json_text(content: Any) -> str:
    """Return JSON that is the same for the same content: sorted keys, two spaces, a final newline."""
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Write `json_text`, completely or not at all."""
    write_text(path, json_text(content))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it; links are followed. Nothing else is waited for, and a pipe would be, for a writer.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe, a socket or a device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {_kind(mode)}, not a file", str(path))
    return open(descriptor, "rb")


def why_missing(path: Path) -> str | None:
    """Return why there is nothing to read at a path, as the rest of a sentence; None if there is something."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as e:  # in a folder that may not be searched, or longer than a name may be
        return f"cannot be read: {e.strerror}"
    return None


def regular_text(path: Path, most: int, encoding: str = "utf-8") -> str:
    """Return the text of a file that is not a pipe and no larger than ``most`` bytes.

    Raises:
        OSError: see `open_regular`.
        ValueError: it is larger, or not text.
    """
    return regular_bytes(path, most).decode(encoding)


def regular_bytes(path: Path, most: int) -> bytes:
    """Return the bytes of a file that is not a pipe and no larger than ``most`` bytes.

    Raises:
        OSError: see `open_regular`.
        ValueError: it is larger.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most >> 20} MiB")
    return data


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, reading it in pieces.

    Raises:
        OSError: see `open_regular`.
    """
    digest = hashlib.sha256()
    with open_regular(path) as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def require_writable(target: Path, folder: Path) -> None:
    """Refuse a folder that is not writable, or cannot be created.

    Args:
        target: the path that messages name.
        folder: where the target will be; it may not exist yet.

    Raises:
        OutputError: nothing can be written there.
    """
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target} cannot be written: {folder} is not a folder you may write to")


_FULL = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "your disk quota is used up; free some space and run again",
    errno.EFBIG: "a file would exceed the size limit (ulimit -f); raise it and run again",
}
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG)


@contextmanager
def refusals(target: Path, any_reason: bool = False) -> Iterator[None]:
    """Turn errors of the file system into an `OutputError`: a full disk or, with ``any_reason``, any error."""
    try:
        yield
    except OSError as e:
        reason = errno.ENOSPC if e.errno is None else e.errno  # NumPy gives no number if the disk is full
        if reason in _FULL:
            raise OutputError(f"{target} was not written: {_FULL[reason]}") from e
        if any_reason or e.errno in _CLOSED:
            raise OutputError(f"{target} cannot be written: {e.strerror or e}; choose another folder") from e
        raise


def as_path(value: object, name: str) -> Path:
    """Return the path that a caller gave.

    Args:
        value: a string or a `os.PathLike`.
        name: the caller's name for it.

    Raises:
        UsageError: it is something else, such as an open file or the address of a bundle, or holds a NUL.
    """
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if isinstance(path, str) and path.startswith(HUB_SCHEME):
        raise UsageError(f"{option(name, path)} is on the hub, not a path; download it first: vivit pull {path} -o DIR")
    if isinstance(path, str) and "\0" in path:
        raise UsageError(f"{option(name, repr(path))} holds a NUL character, which a file name cannot; leave it out")
    if isinstance(path, str):
        return Path(path)
    kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
    is_file = callable(getattr(value, "read", None))
    fix = "give the name of the file, or write its content to one first" if is_file else "give a string or a Path"
    raise UsageError(f"{option(name)} must be a path, got {kind}; {fix}")


def cache_folder(kind: str) -> Path:
    """Return the folder for what this user need not compute again; it may not exist (``XDG_CACHE_HOME``, or ~/.cache).

    Raises:
        RuntimeError: this user has no home.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "vivit-export" / kind

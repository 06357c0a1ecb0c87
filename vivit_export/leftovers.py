"""Unfinished work: hidden files and folders whose maker holds their lock (``flock``) as long as it lives.

A process that is killed cannot remove them. Whoever writes to the same place next does: it knows them by their name,
their owner, and the lock that nobody holds. Their age means nothing, because clocks jump. Where the file system has
no locks, nobody can tell whether somebody still works on them, so they stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_RANDOM_BYTES = 4
_SCRATCH = "scratch"


def _pattern(of: str, ending: str) -> re.Pattern[str]:
    return re.compile(rf"\.{re.escape(of)}\.vivit-[0-9a-f]{{{2 * _RANDOM_BYTES}}}\.{ending}")


def require_room(place: Path) -> None:
    """Raise `OSError` if the name of unfinished work on ``place`` is longer than the disk allows."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        os.lstat(_unfinished(place.parent, place.name, "0" * 2 * _RANDOM_BYTES, "part"))


def _unfinished(folder: Path, of: str, unique: str, ending: str) -> Path:
    return folder / f".{of}.vivit-{unique}.{ending}"


@contextmanager
def held_folder(place: Path, *, within: Path | None = None, ending: str = "part", mode: int = 0o777) -> Iterator[Path]:
    """Make an empty folder beside ``place`` and hold its lock; whoever asked for it removes it.

    Args:
        place: what will be made of it.
        within: where to make it instead.
        ending: distinguishes kinds of leftovers.
        mode: who may use it, of those whom the umask permits.

    Raises:
        OSError: it cannot be made.
    """
    with _held(within or place.parent, place.name, ending, lambda path: path.mkdir(mode)) as folder:
        yield folder


@contextmanager
def held_file(place: Path) -> Iterator[Path]:
    """Make an empty file beside ``place`` and hold its lock; whoever asked for it removes or renames it.

    What is written must go into this file, not into another that takes its name: that one would not be locked.

    Raises:
        OSError: it cannot be made.
    """
    with _held(place.parent, place.name, "part", lambda path: path.touch(exist_ok=False)) as path:
        yield path


@contextmanager
def scratch(within: Path | None = None) -> Iterator[Path]:
    """Make a folder for its owner alone, and remove it at the end.

    Args:
        within: where to make it; None: the system's place for temporary files.

    Raises:
        OSError: it cannot be made.
    """
    with held_folder(_scratch_place(), within=within, mode=0o700) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_scratch(note: Callable[[str], object]) -> None:
    """Remove what killed processes left of `scratch` in the system's place; see `remove_leftovers`."""
    remove_leftovers(_scratch_place(), note)


def remove_leftovers(place: Path, note: Callable[[str], object], *, within: Path | None = None) -> None:
    """Remove what killed processes left of their work on ``place``. What cannot be removed stays.

    Args:
        place: what they worked on.
        note: told of everything that is removed.
        within: where they worked, if not beside ``place``.
    """
    for path in abandoned(place, within=within):
        remove(path, note)


def remove(path: Path, note: Callable[[str], object]) -> None:
    """Remove one of those that `abandoned` yields, and say so. What cannot be removed stays."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
    if not os.path.lexists(path):
        note(f"removed {path}, which an interrupted run had left")


def abandoned(place: Path, *, within: Path | None = None, ending: str = "part") -> Iterator[Path]:
    """Yield what killed processes left of their work on ``place``, each with its lock held until the next is asked for.

    Args:
        place: what they worked on.
        within: where they worked, if not beside it.
        ending: see `held_folder`.
    """
    folder, pattern = within or place.parent, _pattern(place.name, ending)
    try:
        names = sorted(name for name in os.listdir(folder) if pattern.fullmatch(name))
    except OSError:  # there is no such folder, or it cannot be read
        return
    for name in names:
        with _is_abandoned(folder / name) as is_abandoned:
            if is_abandoned:
                yield folder / name


@contextmanager
def _held(folder: Path, of: str, ending: str, make: Callable[[Path], None]) -> Iterator[Path]:
    path, handle = _locked(folder, of, ending, make)
    try:
        yield path
    finally:
        os.close(handle)


def _locked(folder: Path, of: str, ending: str, make: Callable[[Path], None]) -> tuple[Path, int]:
    """Make something with a new name and lock it; again, if somebody found it in between and took it for a leftover."""
    while True:
        path = _unfinished(folder, of, secrets.token_hex(_RANDOM_BYTES), ending)
        make(path)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # no locks here: nobody removes it
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.lexists(path):
            return path, handle
        os.close(handle)


@contextmanager
def _is_abandoned(path: Path) -> Iterator[bool]:
    """Take the lock if nobody has it. Links, devices and what belongs to others are never ours."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        facts = os.fstat(handle)
        kind = stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode)
        yield kind and facts.st_uid == os.geteuid() and _try_lock(handle)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody works on it, or there are no locks here
        return False
    return True


def _scratch_place() -> Path:
    return Path(tempfile.gettempdir()) / _SCRATCH

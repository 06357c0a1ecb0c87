"""Write one file, or one folder, completely or not at all.

A file is written beside its place and renamed into it. A folder is filled as a hidden sibling of its target and
renamed at the very end, so a target is either complete or untouched, whatever ends the work.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivit_export.errors import BundleError, OutputError, option
from vivit_export.signals import uninterrupted


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; rename it into place on success, remove it on any failure.

    Raises:
        OSError: it cannot be renamed.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON deterministically: sorted keys, two spaces, a final newline; completely or not at all."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class FolderKind:
    """A kind of folder that we write whole, and replace whole.

    Attributes:
        name: what messages call one.
        listed: the files that one consists of, relative; raises `BundleError` where it is none.
    """

    name: str
    listed: Callable[[Path], set[str]]


def check_target(target: Path, force: bool, kind: FolderKind) -> None:
    """Refuse a target that must not, or could not, be replaced by a new folder of a kind.

    An empty folder may be, and with ``force`` one of the same kind. Nothing else is ever deleted: no folder
    that merely has a file of the right name, none in which somebody keeps files of their own.

    Raises:
        OutputError: it is none of these, or its parent is not writable.
    """
    with _refusals(target, any_reason=True):
        _require_replaceable(target, force, kind)
        require_writable(target, target.absolute().parent)


def require_writable(target: Path, folder: Path) -> None:
    """Refuse a folder that cannot take something new, or cannot be made.

    Args:
        target: what messages name.
        folder: where the new thing would be; it may not be there yet.

    Raises:
        OutputError: nothing can be written there.
    """
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target} cannot be written: {folder} is not a folder you may write to")


def _require_replaceable(target: Path, force: bool, kind: FolderKind) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"{target} exists and is not a folder; choose another name")
    if not any(target.iterdir()):
        return
    try:
        listed = kind.listed(target)
    except BundleError as e:
        raise OutputError(
            f"{target} exists and is not a {kind.name}, so it is left alone; choose another folder"
        ) from e
    if not force:
        raise OutputError(
            f"{target} exists; pass {option('force')} to replace that {kind.name}, or choose another folder"
        )
    found = (p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_symlink() or not p.is_dir())
    foreign = sorted(set(found) - listed)
    if foreign:
        raise OutputError(
            f"{target} holds {foreign[0]}, which is not part of the {kind.name} and would be lost; move it elsewhere"
        )


@contextmanager
def writing(target: Path, *, force: bool, kind: FolderKind) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill; rename it to ``target`` on success, remove it on any failure.

    Args:
        target: where the folder shall be; behind a symbolic link, the folder it leads to.
        force: replace a folder of this kind that is there.
        kind: what is written, and what may be replaced.

    Raises:
        OutputError: see `check_target`; or the disk is full, or the folder cannot be written.
    """
    with filling(target, check=lambda: check_target(target, force, kind), put=_swap) as work:
        yield work


@contextmanager
def filling(
    target: Path, *, check: Callable[[], None], put: Callable[[Path, Path], None], within: Path | None = None
) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill; put it in place on success, remove it on any failure.

    Args:
        target: what shall be made, or made another; behind a symbolic link, the folder it leads to.
        check: refuses a target as it is; called before, and again when the work is done.
        put: from the filled folder and the target's place: renames into that, or raises `OSError` with nothing changed.
        within: a folder on the target's disk where the work is done, where that is not its parent.

    Raises:
        OutputError: ``check`` does; or the disk is full, or the folder cannot be written.
    """
    with _refusals(target, any_reason=True):
        check()
    place = Path(os.path.realpath(target))
    created: list[Path] = []
    work: Path | None = None
    try:
        with _refusals(target, any_reason=True):
            _make_parents(place.parent, created)
            work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".part", dir=within or place.parent))
            work.chmod(0o755)
        with _refusals(target):
            yield work
        with _refusals(target, any_reason=True), uninterrupted():
            for path in work.rglob("*"):  # some writers make files that only their owner can read
                path.chmod(0o755 if path.is_dir() else 0o644)
            check()  # again: the work took a while
            put(work, place)
    except BaseException:
        with uninterrupted():
            if work is not None:
                shutil.rmtree(work, ignore_errors=True)
            for folder in reversed(created):
                with contextlib.suppress(OSError):  # no longer empty: somebody else uses it
                    folder.rmdir()
        raise


def _make_parents(parent: Path, created: list[Path]) -> None:
    """Create missing parents and add each to ``created``, so that they can be undone."""
    if parent.exists():
        return
    _make_parents(parent.parent, created)
    parent.mkdir()
    created.append(parent)


def _swap(work: Path, place: Path) -> None:
    """Put ``work`` in the place of a folder that may be there; if that fails, that folder is back."""
    if not place.exists():
        work.rename(place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".old", dir=place.parent))
    try:
        place.rename(old / "folder")
        work.rename(place)
    except OSError:
        if not place.exists():
            (old / "folder").rename(place)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


_FULL = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "your disk quota is used up; free some space and run again",
    errno.EFBIG: "a file would exceed the size limit (ulimit -f); raise it and run again",
}
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG)


@contextmanager
def _refusals(target: Path, any_reason: bool = False) -> Iterator[None]:
    """Turn what the file system says into an `OutputError`; with ``any_reason``, whatever it says."""
    try:
        yield
    except OSError as e:
        reason = errno.ENOSPC if e.errno is None else e.errno  # NumPy names none where a file takes no more
        if reason in _FULL:
            raise OutputError(f"{target} was not written: {_FULL[reason]}") from e
        if any_reason or e.errno in _CLOSED:
            raise OutputError(f"{target} cannot be written: {e.strerror or e}; choose another folder") from e
        raise

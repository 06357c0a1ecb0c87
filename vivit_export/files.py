"""Write one file, or one folder, completely or not at all.

A file is written under a temporary name and then renamed. A folder is filled as a hidden sibling of its target and
renamed at the very end, so a target is either complete or untouched, however the work ends. What a killed process left
is removed by the next one that writes there (`vivit_export.leftovers`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vivit_export import atomic, leftovers
from vivit_export.errors import BundleError, OutputError, UsageError, option
from vivit_export.signals import uninterrupted
from vivit_export.swapping import put_back, swap


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
    text = json_text(content)
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


def regular_text(path: Path, most: int, encoding: str = "utf-8") -> str:
    """Return the text of a file that is no pipe and no larger than ``most`` bytes.

    Raises:
        OSError: see `open_regular`.
        ValueError: it is larger, or not text.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most >> 20} MiB")
    return data.decode(encoding)


def why_missing(path: Path) -> str | None:
    """Return why there is nothing to read at a path, as the rest of a sentence; None if there is something."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as e:  # in a folder that may not be searched, or longer than a name may be
        return f"cannot be read: {e.strerror}"
    return None


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


@dataclass(frozen=True, slots=True)
class FolderKind:
    """A kind of folder that is written and replaced as a whole.

    Attributes:
        name: what messages call such a folder.
        listed: returns the files in such a folder as relative paths; raises `BundleError` for any other folder.
    """

    name: str
    listed: Callable[[Path], set[str]]


def check_target(target: Path, force: bool, kind: FolderKind) -> None:
    """Refuse a target that must not, or cannot, be replaced with a new folder of a kind.

    An empty folder may be replaced and, with ``force``, one of the same kind. Nothing else is ever deleted: no
    folder that merely contains a file of the right name, and none that contains other files.

    Raises:
        OutputError: the target is neither, or its parent is not writable.
    """
    with refusals(target, any_reason=True):
        leftovers.require_room(Path(os.path.realpath(target)))
        _require_replaceable(target, force, kind)
        require_writable(target, target.absolute().parent)


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
def writing(
    target: Path,
    *,
    force: bool,
    kind: FolderKind,
    hold: Callable[[Path], AbstractContextManager[object]] = contextlib.nullcontext,
    note: Callable[[str], object] = str,
) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill; rename it to ``target`` on success, remove it on any failure.

    Args:
        target: where to put the folder; a symbolic link is followed.
        force: replace an existing folder of this kind.
        kind: the kind of folder to write, and to replace.
        hold: see `filling`.
        note: see `filling`.

    Raises:
        OutputError: see `check_target`; or the disk is full, or the folder cannot be written.
    """
    place = Path(os.path.realpath(target))
    put_back(place, note)
    with filling(target, check=lambda: check_target(target, force, kind), put=swap, hold=hold, note=note) as work:
        yield work


@contextmanager
def filling(
    target: Path,
    *,
    check: Callable[[], None],
    put: Callable[[Path, Path], None],
    within: Path | None = None,
    hold: Callable[[Path], AbstractContextManager[object]] = contextlib.nullcontext,
    note: Callable[[str], object] = str,
) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill; put it in place on success, remove it on any failure.

    Args:
        target: the folder to create or change; a symbolic link is followed.
        check: refuses a target; called before the work, and again after it.
        put: takes the filled folder and the target: renames into place, or raises `OSError` with nothing changed.
        within: folder on the target's disk to work in, if not the target's parent.
        hold: keeps others from changing the target while the filled folder is put in place.
        note: told of what interrupted runs left of this target, which is removed.

    Raises:
        OutputError: ``check`` refuses the target, the disk is full, or the folder cannot be written.
    """
    with refusals(target, any_reason=True):
        check()
    place = Path(os.path.realpath(target))
    leftovers.remove_leftovers(place, note, within=within)
    created: list[Path] = []
    work: Path | None = None
    with ExitStack() as held:
        try:
            with refusals(target, any_reason=True):
                _make_parents(place.parent, created)
                work = held.enter_context(leftovers.held_folder(place, within=within))
                mode = stat.S_IMODE(work.stat().st_mode)  # the umask and the parent decide
            with refusals(target):
                yield work
            with refusals(target, any_reason=True), hold(place), uninterrupted():
                for path in work.rglob("*"):  # some writers make files that only their owner can read
                    path.chmod(mode if path.is_dir() else mode & 0o666)
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
    """Create missing parents and add each to ``created``, so that they can be removed again."""
    if parent.exists():
        return
    _make_parents(parent.parent, created)
    parent.mkdir()
    created.append(parent)


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
        UsageError: it is something else, such as an open file, or holds a NUL.
    """
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if isinstance(path, str) and "\0" in path:
        raise UsageError(f"{option(name, repr(path))} holds a NUL, which no name of a file can; leave it out")
    if isinstance(path, str):
        return Path(path)
    kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
    is_file = callable(getattr(value, "read", None))
    fix = "give the name of the file, or write its content to one first" if is_file else "give a string or a Path"
    raise UsageError(f"{option(name)} must be a path, got {kind}; {fix}")

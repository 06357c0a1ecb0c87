"""Write a folder completely or not at all.

It is filled as a hidden sibling of its target and renamed at the very end, so a target is either complete or untouched,
however the work ends. What a killed process left is removed by the next one that writes there
(`vivit_export.leftovers`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vivit_export import atomic, leftovers
from vivit_export.errors import BundleError, OutputError, option
from vivit_export.files import refusals, require_writable
from vivit_export.signals import uninterrupted


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
    _put_back(place, note)
    with filling(target, check=lambda: check_target(target, force, kind), put=_swap, hold=hold, note=note) as work:
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
                make_parents(place.parent, created)
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
                remove_empty(created)
            raise


def remove_empty(folders: list[Path]) -> None:
    """Remove folders that `make_parents` created; one that somebody else uses by now stays."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def make_parents(parent: Path, created: list[Path]) -> None:
    """Create missing parents and add each to ``created``, so that they can be removed again."""
    if parent.exists():
        return
    make_parents(parent.parent, created)
    parent.mkdir()
    created.append(parent)


_KEPT = "folder"


def _swap(work: Path, place: Path) -> None:
    """Put ``work`` in place of a folder that may exist, in one step; if that fails, nothing has changed."""
    if not place.exists():
        work.rename(place)
        return
    atomic.sync_tree(work)  # before what it replaces is gone
    if not atomic.exchange(work, place):
        _swap_in_two_steps(work, place)
    shutil.rmtree(work, ignore_errors=True)


def _swap_in_two_steps(work: Path, place: Path) -> None:
    """Do so where the file system cannot exchange two folders; between the steps there is none at ``place``."""
    with leftovers.held_folder(place, ending="old") as old:
        try:
            place.rename(old / _KEPT)
            work.rename(place)
        except OSError:
            if not place.exists():
                (old / _KEPT).rename(place)
            old.rmdir()
            raise
        shutil.rmtree(old, ignore_errors=True)


def _put_back(place: Path, note: Callable[[str], object]) -> None:
    """Restore a folder that a run which was killed in `_swap_in_two_steps` had moved away; remove what it left else."""
    for old in leftovers.abandoned(place, ending="old"):
        if not os.path.lexists(place) and (old / _KEPT).is_dir():
            with contextlib.suppress(OSError):
                (old / _KEPT).rename(place)
                note(f"restored {place}, which an interrupted run had moved away")
                old.rmdir()
        if os.path.lexists(place) and os.path.lexists(old):
            leftovers.remove(old, note)

"""Move the folders of a deployment into a repository, where other models are: all of them, or none.

Several folders take several renames. So what is to be done is written down first, in a hidden sibling that holds the
new folders and takes the old ones. If the process is killed in between, the next run does the rest. In between,
folders may be missing, but those of two deployments are never mixed: all old ones go before the first new one comes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vivit_export import atomic, leftovers
from vivit_export.errors import InputError
from vivit_export.files import write_json
from vivit_export.records import from_json, parse_json, to_json

_ENDING = "moving"
_PLAN, _NEW, _OLD = "moves.json", "new", "old"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done: move the folders ``replaced`` away, then the new ones in."""

    replaced: tuple[str, ...]


def move_in(work: Path, place: Path, replaced: Sequence[str]) -> None:
    """Move everything in ``work`` to ``place``, replacing some folders; if that fails, everything is as it was.

    Args:
        work: filled with the new folders; gone at the end.
        place: the repository; it may not exist yet.
        replaced: folders in it that make room.

    Raises:
        OSError: nothing was moved.
    """
    if not place.exists():
        work.rename(place)
        return
    if replaced:
        atomic.sync_tree(work)  # before what it replaces is gone
    names = [folder.name for folder in work.iterdir()]
    if names == list(replaced) and len(names) == 1 and atomic.exchange(work / names[0], place / names[0]):
        shutil.rmtree(work, ignore_errors=True)
        return
    with leftovers.held_folder(place, within=work.parent, ending=_ENDING) as moving:
        _move_as_planned(work, place, replaced, moving)


def finish_moves(place: Path, note: Callable[[str], object], *, within: Path | None = None) -> None:
    """Finish what a process that was killed in `move_in` had begun. Nothing that came meanwhile is replaced.

    Args:
        place: the repository.
        note: told of each deployment that is finished, and of what is removed.
        within: where the work was done, if not beside it.

    Raises:
        OSError: it cannot be finished.
    """
    for moving in leftovers.abandoned(place, within=within, ending=_ENDING):
        plan = _read(moving / _PLAN)
        if plan is None:  # nothing was done, or everything
            leftovers.remove(moving, note)
        else:
            for name in plan.replaced:
                if os.path.lexists(place / name) and not os.path.lexists(moving / _OLD / name):
                    (place / name).rename(moving / _OLD / name)
            for folder in sorted((moving / _NEW).iterdir()):
                if not os.path.lexists(place / folder.name):
                    folder.rename(place / folder.name)
            note(f"finished a deployment in {place}, in which an earlier run was interrupted")
            _discard(moving)


def _move_as_planned(work: Path, place: Path, replaced: Sequence[str], moving: Path) -> None:
    new, old = moving / _NEW, moving / _OLD
    old.mkdir()
    moves = [(work, new), *((place / name, old / name) for name in replaced)]
    moves += [(new / folder.name, place / folder.name) for folder in sorted(work.iterdir())]
    done: list[tuple[Path, Path]] = []
    try:
        for source, to in moves:
            source.rename(to)
            done.append((source, to))
            if source == work:
                write_json(moving / _PLAN, to_json(_Plan(tuple(replaced))))
    except OSError:
        (moving / _PLAN).unlink(missing_ok=True)
        for source, to in reversed(done):
            to.rename(source)
        _discard(moving)
        raise
    _discard(moving)


def _discard(moving: Path) -> None:
    """Remove the folder, its plan first: a plan says that there is something to do."""
    (moving / _PLAN).unlink(missing_ok=True)
    shutil.rmtree(moving, ignore_errors=True)


def _read(path: Path) -> _Plan | None:
    """Return what is to be done; None: nothing is, because it was not written down yet, or all of it was done."""
    try:
        plan = from_json(_Plan, parse_json(path.read_text(encoding="utf-8")), path.name)
    except (OSError, ValueError, InputError):
        return None
    return plan if all(Path(name).name == name for name in plan.replaced) else None

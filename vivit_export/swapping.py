"""Put a folder in place of another: whoever looks finds one or the other, whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vivit_export import atomic, leftovers

_KEPT = "folder"


def swap(work: Path, place: Path) -> None:
    """Put ``work`` in place of a folder that may exist, in one step; if that fails, nothing has changed.

    Raises:
        OSError: it failed.
    """
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


def put_back(place: Path, note: Callable[[str], object]) -> None:
    """Restore a folder that a run which was killed between two renames had moved away; remove what else it left.

    Args:
        place: the folder.
        note: told if it was restored.
    """
    for old in leftovers.abandoned(place, ending="old"):
        if not os.path.lexists(place) and (old / _KEPT).is_dir():
            with contextlib.suppress(OSError):
                (old / _KEPT).rename(place)
                note(f"restored {place}, which an interrupted run had moved away")
        if os.path.lexists(place):
            shutil.rmtree(old, ignore_errors=True)

"""The unfinished work of ``--precision auto``: a bundle for each precision that passed, and why the others did not.

``NAME.candidates`` lies beside the target while it is worked on. The same command continues with what an interrupted
run left there; another one begins again. It is removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.search import TriedPrecision
from vivit_export.errors import BundleError, InputError, OutputError
from vivit_export.files import regular_text, write_json
from vivit_export.folders import make_parents, remove_empty
from vivit_export.locking import locked
from vivit_export.precision import Precision
from vivit_export.records import from_json, parse_json, to_json

_NOTES = "candidates.json"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class _Notes:
    """What the folder says about itself.

    Attributes:
        key: hash of all that the candidates depend on.
        lost: those that cannot be chosen.
    """

    key: str
    lost: tuple[TriedPrecision, ...] = ()


class Candidates:
    """The folder, while it is held.

    Args:
        folder: it.
        notes: what it says.
    """

    def __init__(self, folder: Path, notes: _Notes) -> None:
        self._folder, self._notes = folder, notes

    @property
    def lost(self) -> dict[Precision, TriedPrecision]:
        """Those that are known not to pass."""
        return {one.precision: one for one in self._notes.lost}

    def place(self, precision: Precision) -> Path:
        """Return where a candidate is, or is to be written."""
        return self._folder / precision

    def found(self, precision: Precision) -> Bundle | None:
        """Return a candidate that is there and whole; remove one that is not."""
        try:
            return read_bundle(self.place(precision))
        except BundleError:
            shutil.rmtree(self.place(precision), ignore_errors=True)
            return None

    def lose(self, one: TriedPrecision) -> None:
        """Record one that cannot be chosen."""
        self._notes = replace(self._notes, lost=(*self._notes.lost, one))
        write_json(self._folder / _NOTES, to_json(self._notes))


def candidates_folder(target: Path) -> Path:
    """Return the folder beside a target."""
    place = Path(os.path.realpath(target))
    return place.with_name(f"{place.name}.candidates")


@contextmanager
def candidates(target: Path, key: str, note: Callable[[str], object]) -> Iterator[Candidates]:
    """Hold the folder of a target; remove it at the end, unless the work was interrupted.

    Args:
        target: the bundle to be.
        key: hash of all that the candidates depend on.
        note: told what is reused, and what is kept.

    Raises:
        OutputError: something else is there, or it cannot be written.
    """
    folder = candidates_folder(target)
    _require_ours(folder)
    created: list[Path] = []
    try:
        make_parents(folder.parent, created)
        folder.mkdir(exist_ok=True)
    except OSError as e:
        remove_empty(created)
        raise OutputError(f"{folder} cannot be made ({e.strerror}); choose another target") from e
    with locked(folder, note):
        notes = _read(folder)
        if notes is not None and notes.key == key:
            note(f"continues with what an interrupted run left in {folder}")
        else:
            _empty(folder)
            notes = _Notes(key)
            write_json(folder / _NOTES, to_json(notes))
        try:
            yield Candidates(folder, notes)
        except KeyboardInterrupt:
            note(f"what was done so far is kept in {folder}; the same command continues with it")
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            remove_empty(created)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _require_ours(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir() or (any(folder.iterdir()) and _read(folder) is None):
        raise OutputError(
            f"{folder} is needed for the candidates and is something else; move it, or choose another target"
        )


def _read(folder: Path) -> _Notes | None:
    with contextlib.suppress(OSError, ValueError, InputError):
        return from_json(_Notes, parse_json(regular_text(folder / _NOTES, _MOST_BYTES)), _NOTES)
    return None


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

"""Write a bundle: its manifest, and the folder as a whole.

The same input produces the same bytes (sorted keys, no timestamps), except for engines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from vivit_export import folders, leftovers
from vivit_export.bundle.manifest import Content, FileRecord
from vivit_export.bundle.names import FORMAT, MANIFEST, SBOM, SIGNATURE
from vivit_export.bundle.reading import read_manifest
from vivit_export.bundle.sbom import renew_sbom
from vivit_export.errors import OutputError
from vivit_export.files import json_text, sha256_of, write_text
from vivit_export.folders import FolderKind
from vivit_export.limits import MOST_MANIFEST_BYTES
from vivit_export.locking import locked_if_there
from vivit_export.records import to_json


def _listed(folder: Path) -> set[str]:
    return {MANIFEST, SIGNATURE, *read_manifest(folder).files}


BUNDLE = FolderKind("bundle", _listed)


def check_target(target: Path, force: bool) -> None:
    """Refuse a target that must not, or cannot, be replaced by a new bundle; see `vivit_export.folders.check_target`.

    Raises:
        OutputError: says why.
    """
    folders.check_target(target, force, BUNDLE)


@contextmanager
def writing(target: Path, *, force: bool, note: Callable[[str], object] = str) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill with a bundle; see `vivit_export.folders.writing`.

    Args:
        target: where to put the bundle.
        force: replace an existing bundle; if another process changes it just then, this waits.
        note: told if it waits, of what an interrupted run left, which is removed, and if what it replaced was signed.

    Raises:
        OutputError: as there.
    """
    leftovers.remove_leftovers(target / SIGNATURE, note)
    was_signed = is_signed(target)
    with folders.writing(
        target, force=force, kind=BUNDLE, hold=lambda place: locked_if_there(place, note), note=note
    ) as work:
        yield work
    if was_signed:
        note(no_longer_signed(target))


def is_signed(folder: Path) -> bool:
    """Whether a bundle has a signature, which need not hold."""
    return os.path.lexists(folder / SIGNATURE)


def no_longer_signed(folder: Path) -> str:
    """Return what to say of a bundle that was signed and then changed."""
    return (
        f"{folder} is not signed any more, because it was changed; sign it again with: vivit sign {folder} --key FILE"
    )


@contextmanager
def replacing(target: Path, note: Callable[[str], object] = str) -> Iterator[Path]:
    """Yield a hidden sibling folder that replaces a bundle whose lock (`vivit_export.locking`) the caller holds.

    Args:
        target: the bundle.
        note: see `writing`.

    Raises:
        OutputError: see `writing`.
    """
    leftovers.remove_leftovers(target / SIGNATURE, note)
    with folders.writing(target, force=True, kind=BUNDLE, note=note) as work:
        yield work


def write_manifest(folder: Path, content: Content) -> None:
    """Write ``bundle.json``: ``content`` plus the format and the hash of every file in ``folder`` but a signature.

    A bill of materials is written anew, because it lists the other files.

    Raises:
        BundleError: it is not one of ours.
        OutputError: it would be larger than what is read.
    """
    listed = list_files(folder, but=(MANIFEST, SIGNATURE, SBOM))
    if (folder / SBOM).exists():
        renew_sbom(folder, content, listed)
        listed[SBOM] = _record(folder / SBOM)
    text = json_text({**to_json(content), "format": FORMAT, "files": to_json(listed)})
    size = len(text.encode())
    if size > MOST_MANIFEST_BYTES:
        raise OutputError(
            f"{MANIFEST} would have {size / (1 << 20):.1f} MiB, and more than {MOST_MANIFEST_BYTES >> 20} are not "
            "read; check on fewer clips"
        )
    write_text(folder / MANIFEST, text)


def list_files(folder: Path, but: Collection[str] = ()) -> dict[str, FileRecord]:
    """Return size and hash of every file below a folder, but for those named, by path with ``/`` between folders."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name: _record(folder / name) for name in names if name not in but}


def _record(path: Path) -> FileRecord:
    return FileRecord(sha256_of(path), path.stat().st_size)

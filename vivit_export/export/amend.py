"""Finish a bundle, or change a finished one, completely or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from vivit_export.bundle import MODEL, Bundle, read_bundle, write_manifest
from vivit_export.bundle.manifest import Content
from vivit_export.bundle.reading import copy_files
from vivit_export.bundle.writing import is_signed, no_longer_signed, replacing
from vivit_export.errors import OutputError
from vivit_export.files import sha256_of
from vivit_export.hub import require_not_cached
from vivit_export.locking import locked
from vivit_export.progress import Progress
from vivit_export.report.html import write_report


def finish(work: Path, content: Content, place: Path, progress: Progress) -> Bundle:
    """Write report and manifest, and read all back.

    Args:
        work: folder with the other files of the bundle.
        content: what it says about itself.
        place: where the folder will be moved to.
        progress: receives the stage, and a note if the page of the report is left out.

    Raises:
        BundleError: the files on disk differ from what was written.
    """
    with progress.stage("write the bundle"):
        write_report(work, content, progress.note)
        write_manifest(work, content)
        return dataclasses.replace(read_bundle(work), path=place)


def amend(path: Path, change: Callable[[Path, Content], Content], progress: Progress) -> Bundle:
    """Replace a bundle by a changed copy, while no other process of this package changes it.

    A signature does not hold for the changed copy, so it is removed, and a note says so.

    Args:
        path: the bundle. If another process changes it, this waits, and then changes what that one wrote.
        change: takes the folder of the copy, which it may change, and the content; returns the new content.
        progress: receives the last stage, and notes: that this waits, what an interrupted run left, or that a signature
            was removed.

    Returns:
        The new bundle, read back with its hashes verified.

    Raises:
        BundleError: the bundle is damaged.
        OutputError: the bundle cannot be replaced; it is as it was.
    """
    require_not_cached(path)
    with locked(path, progress.note):
        was_signed = is_signed(path)
        made = _amend(path, change, progress)
    if was_signed:
        progress.note(no_longer_signed(path))
    return made


def _amend(path: Path, change: Callable[[Path, Content], Content], progress: Progress) -> Bundle:
    with replacing(path, progress.note) as work:
        source = read_bundle(path, verify=False)
        copy_files(source, work)
        content = change(work, source.manifest.content)
        if read_bundle(path, verify=False).manifest != source.manifest:  # where locks do not work
            raise OutputError(f"another process changed {path} meanwhile, so it was left as it is; run again")
        return finish(work, content, path, progress)


def require_same(source: Bundle, work: Path, content: Content, done: str) -> None:
    """Refuse to save a result in a bundle whose graph or engines are others by now.

    Args:
        source: the bundle as it was when the work began.
        work: see `amend`, as for ``content``.
        content: see there.
        done: what was done with it, such as ``timed``.

    Raises:
        OutputError: it was changed.
    """
    rebuilt = any(content.engines.get(name) != engine for name, engine in source.engines.items())
    if rebuilt or sha256_of(work / MODEL) != source.manifest.files[MODEL].sha256:
        raise OutputError(f"{source.path} was changed while it was {done}, so the result was not saved; run again")

"""Finish a bundle, or change a finished one, completely or not at all."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from vivit_export.bundle import Bundle, read_bundle, write_manifest, writing
from vivit_export.bundle.manifest import Content
from vivit_export.progress import Progress
from vivit_export.report.html import write_report


def finish(work: Path, content: Content, place: Path, progress: Progress) -> Bundle:
    """Write report and manifest, and read all back.

    Args:
        work: folder with the other files of the bundle.
        content: what it says about itself.
        place: where the folder will be moved to.
        progress: receives the stage.

    Raises:
        BundleError: the files on disk differ from what was written.
    """
    with progress.stage("write the bundle"):
        write_report(work, content)
        write_manifest(work, content)
        return dataclasses.replace(read_bundle(work), path=place)


def amend(source: Bundle, change: Callable[[Path, Content], Content], progress: Progress) -> Bundle:
    """Replace a bundle by a changed copy.

    Args:
        source: a verified bundle.
        change: takes the folder of the copy, which it may change, and the content; returns the new content.
        progress: receives the last stage.

    Returns:
        The new bundle, read back with its hashes verified.

    Raises:
        OutputError: the bundle cannot be replaced; it is as it was.
    """
    with writing(source.path, force=True) as work:
        for name in source.manifest.files:
            copy = work / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path / name, copy)
        content = change(work, source.manifest.content)
        return finish(work, content, source.path, progress)

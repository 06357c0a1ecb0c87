"""Finish a bundle, and change a finished one: as a whole, or not at all."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vivit_export import bundle
from vivit_export.bundle import Bundle
from vivit_export.progress import Progress
from vivit_export.report.html import write_report


def finish(work: Path, manifest: dict[str, Any], place: Path, progress: Progress) -> Bundle:
    """Write report and manifest, and read all back.

    Args:
        work: folder with the other files of the bundle.
        manifest: its content.
        place: where the folder will be renamed to.
        progress: told about the stage.

    Raises:
        BundleError: what was written is not what was meant to be.
    """
    with progress.stage("write the bundle"):
        write_report(work, manifest)
        bundle.write_manifest(work, manifest)
        return dataclasses.replace(bundle.read_bundle(work), path=place)


def amend(source: Bundle, change: Callable[[Path, dict[str, Any]], None], progress: Progress) -> Bundle:
    """Replace a bundle by a changed copy.

    Args:
        source: a verified bundle.
        change: is given the folder of the copy and the manifest's content, and changes both.
        progress: told about the last stage.

    Returns:
        The new bundle, read back with its hashes verified.

    Raises:
        OutputError: the bundle cannot be replaced; it is as it was.
    """
    content = {name: section for name, section in source.manifest.items() if name not in ("format", "files")}
    with bundle.writing(source.path, force=True) as work:
        for name in source.manifest["files"]:
            copy = work / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path / name, copy)
        change(work, content)
        return finish(work, content, source.path, progress)

"""Read what was written of a bundle: the bundle itself, or the ``report.json`` of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vivit_export.bundle import MANIFEST, REPORT, read_bundle
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.manifest import Content, FileRecord
from vivit_export.report.baseline import read_report
from vivit_export.report.page import latest_check


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a bundle, or the report of one, says.

    Attributes:
        name: what to call it.
        content: what it says about itself.
        files: files of the bundle; none in a report.
    """

    name: str
    content: Content
    files: Mapping[str, FileRecord] = field(default_factory=dict)

    @property
    def check(self) -> DriftReport | None:
        """The check that was saved last, or else that of the export."""
        return latest_check(self.content)


def read_stored(path: Path) -> StoredRun:
    """Read a bundle, a ``report.json``, or a folder with one, as a failed export leaves it.

    Raises:
        InputError: it is none of these, or cannot be read.
    """
    if path.is_dir() and ((path / MANIFEST).exists() or not (path / REPORT).exists()):
        found = read_bundle(path, verify=False)
        return StoredRun(str(path), found.manifest.content, found.manifest.files)
    return StoredRun(str(path), read_report(path / REPORT if path.is_dir() else path))

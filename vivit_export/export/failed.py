"""What an export or a build whose check fails leaves: a folder beside the bundle, or its place, with the report.

``NAME.failed`` holds ``report.html``, ``report.json`` and ``report.txt``. The next run that fails replaces it, and one
that succeeds removes it, so that it always tells of the last run. It has no ``bundle.json``, so nothing takes it for a
bundle.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vivit_export import folders
from vivit_export.bundle import REPORT, REPORT_HTML
from vivit_export.bundle.manifest import Content
from vivit_export.errors import BundleError, DriftError, OutputError
from vivit_export.files import regular_text
from vivit_export.folders import FolderKind
from vivit_export.progress import Progress
from vivit_export.report.check_file import report_text
from vivit_export.report.html import FORMAT, write_report

REPORT_TXT = "report.txt"
_FILES = {REPORT, REPORT_HTML, REPORT_TXT}
_MOST_BYTES = 256 << 20


class FailedCheckError(DriftError):
    """A check that failed, and what the bundle would have said about itself.

    Args:
        content: that, with the check.
        pictures: of its clips; see `render_html`.
        consequence: see `DriftReport.require`.
        failure: what failed, as a sentence; None: the first failure of the check.
    """

    def __init__(
        self, content: Content, pictures: Mapping[int, str], consequence: str, *, failure: str | None = None
    ) -> None:
        assert content.checks is not None
        super().__init__((failure or content.checks.failures()[0]) + consequence)
        self.content = content
        self.pictures = pictures


def failed_folder(target: Path) -> Path:
    """Return the folder of the report beside a target."""
    place = Path(os.path.realpath(target))
    return place.with_name(f"{place.name}.failed")


@contextmanager
def keeping_the_report(target: Path, progress: Progress) -> Iterator[None]:
    """Write the report of an export if its check fails; remove that of an earlier run if it succeeds.

    Args:
        target: the bundle that was to be written.
        progress: receives notes on what is removed.

    Raises:
        DriftError: the check failed; the message names the report, or why there is none.
    """
    place = failed_folder(target)
    try:
        yield
    except FailedCheckError as e:
        raise DriftError(f"{e.sentence}; {_write(place, _shown(place, target), e, progress.note)}") from None
    _remove(place, progress.note)


def _shown(place: Path, target: Path) -> Path:
    """Return the folder as the user would write it."""
    beside = target.parent / place.name
    return beside if os.path.realpath(beside) == str(place) else place


def _write(place: Path, shown: Path, failed: FailedCheckError, note: Callable[[str], object]) -> str:
    """Write the report and return where it is, or why it is nowhere: the drift is what the user must know."""
    content = failed.content
    assert content.checks is not None
    try:
        with folders.writing(place, force=True, kind=_REPORT, note=note) as work:
            write_report(work, content, note, failed.pictures)
            (work / REPORT_TXT).write_text(report_text(content.checks), encoding="utf-8")
    except OutputError as e:
        return f"its report could not be written: {e.sentence}"
    return f"the report is in {shown}"


def _remove(place: Path, note: Callable[[str], object]) -> None:
    try:
        folders.check_target(place, force=True, kind=_REPORT)
        if not any(place.iterdir()):
            return
    except (OutputError, OSError):  # there is none, or it is not ours to remove
        return
    shutil.rmtree(place, ignore_errors=True)
    note(f"removed {place}, the report of an earlier run that failed")


def _listed(folder: Path) -> set[str]:
    """Return the files of such a folder; BundleError for any other."""
    try:
        told = json.loads(regular_text(folder / REPORT, _MOST_BYTES))
    except (OSError, ValueError) as e:
        raise BundleError(f"{folder} has no report") from e
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise BundleError(f"{folder} has no report that this version knows")
    return _FILES


_REPORT = FolderKind("report of a failed export", _listed)

"""Write the result of a check to a file of its own: as a page, as JSON or as text, by the file's suffix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.manifest import Content
from vivit_export.errors import UsageError, option
from vivit_export.files import check_file, json_text, writing_file
from vivit_export.printing import lines
from vivit_export.records import to_json
from vivit_export.report.html import FORMAT, render_html
from vivit_export.report.text import drift_text


def check_report_file(path: Path, force: bool) -> None:
    """Refuse a file that could not be written; call it before the check.

    Raises:
        UsageError: its suffix is none of ``.html``, ``.json`` and ``.txt``.
        OutputError: see `check_file`.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"{option('report', path)} must end in {', '.join(_WRITERS)}, which says what is written")
    check_file(path, force)


def write_check_report(
    path: Path, content: Content, report: DriftReport, *, force: bool, pictures: Mapping[int, str] | None = None
) -> None:
    """Write a report of the bundle with this check in place of the stored one.

    Args:
        path: the file.
        content: what the bundle says about itself.
        report: the check.
        force: replace an existing file.
        pictures: of the clips of the check; see `render_html`.

    Raises:
        UsageError, OutputError: as for `check_report_file`.
    """
    check_report_file(path, force)
    checked = replace(content, checks=report, recheck=None)
    text = _WRITERS[path.suffix.lower()](checked, report, pictures or {})
    with writing_file(path, force=force) as part:
        part.write_text(text, encoding="utf-8")


def report_text(report: DriftReport) -> str:
    """Return a check as a text file, which a terminal only shows, with every reason why it failed."""
    reasons = "".join(f"\nfailed     {reason}" for reason in report.failures())
    return lines(drift_text(report) + reasons) + "\n"


_WRITERS: dict[str, Callable[[Content, DriftReport, Mapping[int, str]], str]] = {
    ".html": lambda content, _, pictures: render_html(content, pictures),
    ".json": lambda content, *_: json_text({"format": FORMAT, **to_json(content)}),
    ".txt": lambda _, report, __: report_text(report),
}

"""``vivit check A --compare B``: two stored runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vivit_export.cli.show import show_json, show_text
from vivit_export.errors import UsageError, option
from vivit_export.files import json_text, writing_file
from vivit_export.printing import lines

if TYPE_CHECKING:
    from vivit_export.cli.show import CheckFormat
    from vivit_export.report.compare import Comparison


def compare_stored(before: Path, after: Path, form: CheckFormat, report: Path | None, force: bool) -> None:
    """Print what differs, and write it to a file if asked.

    Raises:
        UsageError: the form, or the suffix of the file, is none of a comparison.
        InputError: one of the two cannot be read, or they are of different models.
        DriftError: the second is not good enough; see `Comparison.require`.
    """
    from vivit_export.report.check_file import check_report_file
    from vivit_export.report.compare import compare
    from vivit_export.report.compare_text import comparison_text
    from vivit_export.report.stored import read_stored

    if form not in ("text", "json"):
        raise UsageError(f"{option('compare')} prints text or json, not {option('format', form)}")
    if report is not None:
        check_report_file(report, force)
    found = compare(read_stored(before), read_stored(after))
    if form == "json":
        show_json(found.to_json())
    else:
        show_text(comparison_text(found))
    if report is not None:
        text = _text(found, report.suffix.lower())
        with writing_file(report, force=force) as part:
            part.write_text(text, encoding="utf-8")
    found.require()


def _text(found: Comparison, suffix: str) -> str:
    from vivit_export.report.compare_text import comparison_html, comparison_text

    if suffix == ".html":
        return comparison_html(found)
    return json_text(found.to_json()) if suffix == ".json" else lines(comparison_text(found)) + "\n"

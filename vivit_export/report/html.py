"""The report of a bundle: the same facts for machines (JSON) and for people (one HTML page).

What a bundle says about itself was written by others. The templates escape all of it, and the page allows itself
neither scripts nor anything from elsewhere.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vivit_export.bundle import GOLDEN, MANIFEST, REPORT, REPORT_HTML, SIGNATURE
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.manifest import Content, FileRecord, Manifest
from vivit_export.bundle.writing import list_files
from vivit_export.files import write_json
from vivit_export.packages import missing_package
from vivit_export.records import to_json
from vivit_export.report.clip_cards import OPEN, pictured_rows
from vivit_export.report.films import films
from vivit_export.report.page import is_on_golden, page_of

FORMAT = "vivit-report/2"


def write_report(
    folder: Path,
    content: Content,
    note: Callable[[str], object] = str,
    pictures: Mapping[int, str] | None = None,
) -> None:
    """Write ``report.json`` and ``report.html`` from the contents of a bundle.

    Args:
        folder: where the other files of the bundle are.
        content: what it says about itself.
        note: told if the page is left out, because the package that writes it is not installed.
        pictures: see `render_html`; None: of the golden clips in the folder.
    """
    write_json(folder / REPORT, {"format": FORMAT, **to_json(content)})
    page = folder / REPORT_HTML
    if importlib.util.find_spec("jinja2") is None:
        page.unlink(missing_ok=True)  # it would tell of another state
        note(f"{REPORT_HTML} is left out: {missing_package('jinja2')}")
        return
    if pictures is None:
        pictures = golden_pictures(folder, content)
    files = list_files(folder, but=(MANIFEST, SIGNATURE, REPORT, REPORT_HTML))
    page.write_text(render_html(content, pictures, files), encoding="utf-8")


def golden_pictures(folder: Path, content: Content, check: DriftReport | None = None) -> dict[int, str]:
    """Return pictures of the golden clips that the page of a check shows.

    Args:
        folder: where they are.
        content: what the bundle says about itself.
        check: a later check, whose clips have pictures only if they are clips of the export's. None: the export's.

    Returns:
        Pictures by row of the check at export.
    """
    stored, shown = content.checks, check or content.checks
    if stored is None or shown is None or not is_on_golden(shown, stored):
        return {}
    rows = {name: row for row, name in enumerate(stored.names)}
    wanted = [rows[shown.names[row]] for row in pictured_rows(shown)]
    return films(folder / GOLDEN, content.contract, len(rows), wanted)


def render_html(
    content: Content, pictures: Mapping[int, str] | None = None, files: Mapping[str, FileRecord] | None = None
) -> str:
    """Return a self-contained page, without scripts and external resources.

    Args:
        content: what a bundle says about itself.
        pictures: of the clips of ``content.checks`` by row; see `films`.
        files: the files to list; None: those of a manifest.

    Raises:
        MissingDependencyError: the package jinja2 is not installed.
    """
    if files is None:
        files = content.files if isinstance(content, Manifest) else {}
    return rendered("report.html.j2", page=page_of(content, pictures or {}, files), open_cards=OPEN)


def rendered(template: str, **values: Any) -> str:
    """Return a page from one of the templates; see `vivit_export.report.templating`."""
    from vivit_export.report.templating import render

    return render(template, values)

"""The report as a page: the same facts, and no markup from names."""

from __future__ import annotations

from headless_bundle import CHECKS, ENGINE, headless

from vivit_export.report.html import render_html


def test_the_page_shows_the_same_and_takes_no_markup_from_names() -> None:
    page = render_html(headless(checks=CHECKS, engines={"rtx": ENGINE}).manifest)
    assert "<b>mine" not in page and "&lt;b&gt;mine&lt;/b&gt;" in page
    for text in ("0.9998700", "not run: needs 2.0 GiB", "SM89, SM120", "1 / 4 / 8", "1.5 MB", "8×8"):
        assert text in page
    assert "Not checked (--no-check)." in render_html(headless().manifest)

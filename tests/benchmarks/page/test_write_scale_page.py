"""The page on any number of videos is what the results make of it."""

from __future__ import annotations

from write_scale_page import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python benchmarks/page/write_scale_page.py"

"""A comparison as text and as a page."""

from __future__ import annotations

from dataclasses import replace

from long_report import long_report

from vivit_export.report.compare import Comparison, compare
from vivit_export.report.compare_text import comparison_html, comparison_text
from vivit_export.report.stored import StoredRun


def compared(name: str = "after", worst: float = 0.0812) -> Comparison:
    content = long_report(worst=worst)
    engine = replace(content.engines["tensorrt-rtx"], version="1.8.0.1")
    changed = replace(content, engines={**content.engines, "tensorrt-rtx": engine})
    return compare(StoredRun("before", long_report()), StoredRun(name, changed))


def test_each_group_has_its_lines() -> None:
    lines = comparison_text(compared()).splitlines()
    assert lines[0] == "google/vivit-b-16x2-kinetics400: before and after"
    assert lines[1].startswith("verdict    PASS and FAIL: The largest logit difference is 8.12 % of the range")
    assert "versions   engine tensorrt-rtx: tensorrt-rtx 1.7.1.116 became tensorrt-rtx 1.8.0.1" in lines
    assert "device     3 the same" in lines
    assert "           largest logit difference: 0.41 % of the range became 8.12 % of the range (worse)" in lines
    assert "plan of tensorrt-rtx: 9 the same" in lines
    assert "latency    tensorrt-rtx, batch 1: 6.10 ms (1.00 times as fast)" in lines


def test_a_terminal_only_shows_what_a_name_says() -> None:
    assert "\x1b" not in comparison_text(compared("\x1b[2J"))


def test_the_page_has_both_verdicts_and_takes_no_markup_from_names() -> None:
    page = comparison_html(compared("<b>after</b>"))
    assert ">PASS<" in page and ">FAIL<" in page and "<script" not in page
    assert "<b>after" not in page and "&lt;b&gt;after&lt;/b&gt;" in page
    assert '<td class="text worse">worse</td>' in page and '<td class="text"><b>tensorrt-rtx 1.8.0.1</b></td>' in page

"""The performance page is what the results make of it, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from line_chart import line_chart  # noqa: E402
from write_performance_page import PAGE, RESULTS, SECTIONS, growth_charts, page, table  # noqa: E402


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tools/write_performance_page.py"


def test_every_result_has_a_section_or_is_listed_as_not_measured() -> None:
    written = page()
    for name, title, _ in SECTIONS:
        measured = (RESULTS / f"{name}.json").exists()
        assert (f"## {title}\n" in written) == measured
        assert (f"- {title} (`benchmarks/{name}.py`)" in written) != measured
    known = {name for name, _, _ in SECTIONS}
    assert {path.stem for path in RESULTS.glob("*.json")} <= known


def test_without_results_nothing_is_claimed(tmp_path: Path) -> None:
    written = page(tmp_path)
    assert "|" not in written
    assert written.count("\n- ") == len(SECTIONS)


def test_a_changed_figure_changes_the_page(tmp_path: Path) -> None:
    content = json.loads((RESULTS / "preprocess.json").read_text())
    content["results"][0]["ratio_of_median"] = 123.45
    (tmp_path / "preprocess.json").write_text(json.dumps(content))
    assert "| 123.45 |" in page(tmp_path)


def test_charts_are_up_to_date() -> None:
    path = RESULTS / "scaling.json"
    if not path.exists():
        pytest.skip("growth was not measured")
    for name, chart in growth_charts(json.loads(path.read_text())).items():
        assert (PAGE.parent / name).read_text(encoding="utf-8") == chart


def test_a_chart_is_svg_with_a_line_for_each_series() -> None:
    root = ElementTree.fromstring(line_chart("a < b", "x", [1, 2, 4], {"up": [1, 2, 4], "flat": [3, 3, 3]}))
    lines = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2
    up, flat = ([float(pair.split(",")[1]) for pair in line.attrib["points"].split()] for line in lines)
    assert up[0] > up[1] > up[2] and len(set(flat)) == 1
    assert "a < b" in [element.text for element in root.iter()]


def test_tables_are_markdown() -> None:
    assert table(("a", "b"), [(1, "x")]).splitlines() == ["| a | b |", "| --- | --- |", "| 1 | x |"]

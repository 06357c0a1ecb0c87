"""What passed with which versions is counted from pytest's reports; one record stands for one set of versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from project_file import project
from record_versions import EXPORT, PRECISIONS, RECORD, add, counted, folders

from vivit_export.precision import Precision

FIRST = """<testsuites><testsuite tests="4">
<testcase classname="tests.test_errors" name="a"/><testcase classname="tests.runtime.clips.test_views" name="b"/>
<testcase classname="tests.bundle.test_reading.Kind" name="c"><failure/></testcase>
<testcase classname="tests.bundle.test_reading.Kind" name="d"><error/></testcase></testsuite></testsuites>"""
SECOND = """<testsuites><testsuite tests="2">
<testcase classname="tests.bundle.test_reading.Kind" name="c"/>
<testcase classname="tests.report.test_text" name="e"><skipped/></testcase></testsuite></testsuites>"""


def test_tests_are_counted_over_all_reports_as_they_ended_last(tmp_path: Path) -> None:
    reports = [tmp_path / "first.xml", tmp_path / "second.xml"]
    for report, text in zip(reports, (FIRST, SECOND), strict=True):
        report.write_text(text)
    assert counted(reports) == {"passed": 3, "skipped": 1, "failed": 1}
    assert folders(reports) == ["tests", "tests/bundle", "tests/report", "tests/runtime"]


def test_a_new_record_takes_the_place_of_the_same_versions(tmp_path: Path) -> None:
    path = tmp_path / "versions.json"
    for python, passed in (("3.12", 1), ("3.13", 2), ("3.12", 3)):
        add("serving", {"label": "newest", "python": python, "passed": passed}, ("label", "python"), path)
    stored = json.loads(path.read_text())["serving"]
    assert [(run["python"], run["passed"]) for run in stored] == [("3.13", 2), ("3.12", 3)]


@pytest.mark.parametrize(
    "run", json.loads(RECORD.read_text())["serving"], ids=lambda run: f"{run['label']}-{run['python']}"
)
def test_what_serves_passed_with_every_recorded_python(run: dict[str, dict[str, int]]) -> None:
    assert run["tests"]["failed"] == 0
    assert run["tests"]["passed"] > 0


RUNS = json.loads(RECORD.read_text())["export"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(run["packages"][name] for name in EXPORT[:2]))
def test_every_recorded_pair_gave_the_same_graph_and_full_fusion(run: dict[str, Any]) -> None:
    assert run["tests"] is None or run["tests"]["failed"] == 0
    for precision in PRECISIONS:
        made, first = run["exports"][str(precision)], RUNS[0]["exports"][str(precision)]
        assert (made["rewrites"], made["declined"]) == (first["rewrites"], 0)
        assert made["rewrites"], "no rewrite matched"
        assert made["attention_fused"] == (0 if precision is Precision.FP32 else made["blocks"])
    assert run["exports"]["int8"]["quantized"] == 16


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_the_lowest_versions_that_pip_takes_were_tried(package: str) -> None:
    bound = next(r for r in project()["optional-dependencies"]["export"] if r.startswith(f"{package}>="))
    lowest = bound.partition(">=")[2].split(".")
    assert any(run["packages"][package].split(".")[: len(lowest)] == lowest for run in RUNS)

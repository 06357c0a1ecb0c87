"""What passed with which versions is counted from pytest's reports; one record stands for one set of versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from project_file import project
from record_versions import EXPORT, PRECISIONS, RECORD, add, counted, folders

from vivit_export.precision import Precision

REPORT = """<testsuites><testsuite failures="1" errors="1" skipped="2" tests="9">
<testcase classname="tests.test_errors" name="a"/><testcase classname="tests.runtime.clips.test_views" name="b"/>
<testcase classname="tests.bundle.test_reading.Kind" name="c"/></testsuite></testsuites>"""


def test_tests_are_counted_over_all_reports(tmp_path: Path) -> None:
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_text(REPORT)
    reports = [tmp_path / "a.xml", tmp_path / "b.xml"]
    assert counted(reports) == {"passed": 10, "skipped": 4, "failed": 4}
    assert folders(reports) == ["tests", "tests/bundle", "tests/runtime"]


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

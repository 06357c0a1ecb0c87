"""What continuous integration reads of a check."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from made_records import drift_report

from vivit_export.bundle.checks import DriftReport, Parity, Run
from vivit_export.report.ci import github_text, junit_text
from vivit_export.runtime.drift.metrics import compare

LOGITS = {"logits": np.array([[0.0, 1.0, 4.0]], np.float32)}
SAME = compare(LOGITS, LOGITS)
FAR = compare(LOGITS, {"logits": LOGITS["logits"] + 40})
EQUAL = Parity("the graph", "the runtime", 9, 0, 0.0)


def checked(*runs: Run, parity: tuple[Parity, ...] = (EQUAL,)) -> DriftReport:
    return replace(drift_report(Run("eager fp16", 1, False, FAR), *runs), parity=parity)


def test_junit_has_a_case_for_what_is_gated() -> None:
    report = checked(
        Run("onnxruntime", 1, True, SAME), Run("openvino", 8, True, FAR), Run("tensorrt", 1, True, None, "not here")
    )
    suite = ElementTree.fromstring(junit_text(report, "out/demo"))
    assert suite.attrib == {"name": "vivit check", "tests": "4", "failures": "1", "errors": "0", "skipped": "1"}
    cases = suite.findall("testcase")
    assert {case.get("classname") for case in cases} == {"out/demo"}
    assert [case.get("name") for case in cases] == [
        "onnxruntime, batch 1",
        "openvino, batch 8",
        "tensorrt, batch 1",
        "pixels: the graph and the runtime",
    ]
    assert [[part.tag for part in case] for case in cases] == [[], ["failure"], ["skipped"], []]
    failure = cases[1].find("failure")
    assert failure is not None and failure.get("message") == "max 10 is above 1" == failure.text
    assert (suite.findtext("system-out") or "").startswith("FAILED: 2 runs against eager fp32 on 1 clip: mine\n")


def test_pixels_that_differ_are_a_failure() -> None:
    parity = (replace(EQUAL, differing=2, max_abs=1.0), replace(EQUAL, differing=1, gated=False))
    suite = ElementTree.fromstring(junit_text(checked(parity=parity), "x"))
    assert [len(case.findall("failure")) for case in suite.findall("testcase")] == [1, 0]


@pytest.mark.parametrize("hostile", ['<a b="&">', "\x00\x1b[31m\ud800", "]]>", "a\nb"])
def test_names_of_others_stay_text(hostile: str) -> None:
    report = checked(Run(hostile, 1, True, FAR))
    suite = ElementTree.fromstring(junit_text(report, hostile))
    assert len(suite.findall("testcase")) == 2
    told = github_text(report, hostile)
    assert [line[:8] for line in told.splitlines()] == ["::error ", "::notice"]
    assert "\x1b" not in told


def test_github_gets_an_error_for_each_failure_and_a_notice() -> None:
    """Escapes: GitHub's toolkit, packages/core/src/command.ts."""
    error, notice = github_text(checked(Run("onnxruntime", 2, True, FAR)), "a:b,c").splitlines()
    assert error == (
        "::error title=vivit check%3A a%3Ab%2Cc::drift beyond the gate in onnxruntime at batch 2: max 10 is above 1"
    )
    assert notice.startswith(
        "::notice title=vivit check%3A a%3Ab%2Cc::FAILED: 1 run against eager fp32 on 1 clip: mine. "
    )
    assert "with 95 %25 confidence" in notice
    passed = github_text(checked(Run("onnxruntime", 2, True, SAME)), "x")
    assert passed.startswith("::notice title=vivit check%3A x::Passed: 1 run")

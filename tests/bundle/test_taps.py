"""The records of taps: what is beyond a budget, and that they survive JSON."""

from __future__ import annotations

import pytest

from vivit_export.bundle.taps import Suspect, Tap, TapError, TapReport
from vivit_export.precision import Precision
from vivit_export.records import from_json, to_json

GOOD, BAD = TapError(0.001, 1.0, 0.1, 0.005), TapError(0.006, 0.99, 0.1, 0.005)


@pytest.mark.parametrize(
    ("error", "budget", "beyond"),
    [(0.005, 0.005, False), (0.0051, 0.005, True), (None, 0.005, True), (None, None, False), (9.0, None, False)],
)
def test_an_error_is_beyond_its_budget_if_larger_or_no_number(
    error: float | None, budget: float | None, beyond: bool
) -> None:
    assert TapError(error, None, None, budget).beyond is beyond


def test_the_type_is_the_cause_where_eager_has_the_error_too() -> None:
    assert Tap("a", BAD, BAD, BAD).cause == "precision"
    assert Tap("a", GOOD, BAD, BAD).cause == "graph"
    assert Tap("a", None, BAD, BAD).cause == "graph"
    assert Tap("a", GOOD, GOOD, BAD).cause is None


def test_a_report_survives_json_with_errors_that_are_no_numbers() -> None:
    lost = TapError(None, None, None, 0.005)
    suspect = Suspect("a", "precision", None, ("n",), ("m",), "keep_fp32", "^m")
    report = TapReport("here", Precision.FP16, (Tap("a", lost, GOOD, lost),), suspect)
    assert from_json(TapReport, to_json(report), "taps") == report

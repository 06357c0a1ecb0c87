"""The verdict in one sentence, and the limits of the gate with how much of each is used."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from long_report import long_report
from made_records import drift_report

from vivit_export.bundle.baseline import Baseline
from vivit_export.bundle.checks import METRICS, DriftReport, Gate, Parity, Run
from vivit_export.report.verdict import METRIC_TITLES, limit_uses, verdict_of


def checks(worst: float = 0.0041) -> DriftReport:
    found = long_report(worst=worst).checks
    assert found is not None
    return found


def test_passed_with_what_is_closest_to_its_limit() -> None:
    verdict = verdict_of(checks())
    assert (verdict.state, verdict.word) == ("passed", "PASS")
    assert verdict.reason == (
        "On 8 clips, all 2 gated runs are within every limit; closest to its limit is the largest logit difference: "
        "0.41 % of the range, at most 5 %"
    )


def test_failed_with_the_first_reason_and_how_many_more() -> None:
    found = replace(checks(worst=0.0812), parity=(Parity("the graph", "the runtime", 10, 1, 0.1),))
    verdict = verdict_of(found)
    assert (verdict.state, verdict.word) == ("failed", "FAIL")
    assert verdict.reason == (
        "The largest logit difference is 8.12 % of the range in onnxruntime 1.32.0 cpu, batch 8, and must be at most "
        "5 %; 1 more failure"
    )


def test_failed_against_a_stored_run_alone() -> None:
    found = replace(checks(), baseline=Baseline("old.json", 8, 0, 0, 1.2, ("a new clear flip",)))
    assert not found.passed
    verdict = verdict_of(found)
    assert verdict.state == "failed"
    assert verdict.reason.lower() == found.failures()[0].lower()


def test_what_was_not_run_is_not_passed() -> None:
    assert verdict_of(None).word == "NOT CHECKED"
    left_out = drift_report(Run("tensorrt", 1, True, None, "no GPU"))
    assert verdict_of(left_out).reason == "No gated run could be carried out on the 1 clip"


def test_the_worst_gated_run_counts() -> None:
    uses = {use.metric: use for use in limit_uses(checks())}
    assert list(uses) == ["top1", "clear_flips", "max", "cosine", "nonfinite"]
    assert uses["max"].run == "onnxruntime 1.32.0 cpu, batch 8"
    assert uses["max"].share == pytest.approx(0.0041 / 0.05)
    assert (uses["cosine"].worst, uses["cosine"].limit) == ("0.9999851", "at least 0.995")
    assert uses["cosine"].share == pytest.approx((1 - 0.9999851) / (1 - 0.995))
    assert all(use.is_met for use in uses.values())


@pytest.mark.parametrize(
    ("limits", "share", "width", "is_met"),
    [
        ({"max": 0.0041}, 1.0, 100.0, True),
        ({"max": 0.00409}, 1.01, 100.0, False),
        ({"max": 0.00205}, 2.0, 100.0, False),
        ({"max": 0.0}, 2.0, 100.0, False),
        ({"top1": 1.0}, 0.0, 0.0, True),
        ({"clear_flips": 0}, 0.0, 0.0, True),
    ],
)
def test_a_bar_is_full_at_the_limit_and_beyond(
    limits: dict[str, float], share: float, width: float, is_met: bool
) -> None:
    (use,) = limit_uses(replace(checks(), gate=Gate(limits)))
    assert use.share == pytest.approx(share, abs=0.005)
    assert (use.width, use.is_met) == (width, is_met)


def test_a_regression_against_a_stored_check_is_a_reason() -> None:
    verdict = verdict_of(replace(checks(), baseline=Baseline("old.json", 8, 5, 1, 2.0, ("a new clear flip",))))
    assert (verdict.word, verdict.reason[:38]) == ("FAIL", "A new clear flip against old.json (5 o")


def test_what_is_not_a_number_is_the_worst() -> None:
    found = checks()
    drift = found.runs[1].drift
    assert drift is not None
    lost = replace(drift, max=math.nan, cosine=math.nan)
    runs = (found.runs[0], replace(found.runs[1], drift=lost), *found.runs[2:])
    broken = {use.metric: use for use in limit_uses(replace(found, runs=runs)) if not use.is_met}
    assert set(broken) == {"max", "cosine"} and broken["max"].run == "onnxruntime 1.32.0 cpu, batch 1"
    assert broken["max"].worst == "not finite" and broken["max"].width == 100.0
    assert "The largest logit difference is not finite" in verdict_of(replace(found, runs=runs)).reason


def test_every_metric_has_a_title() -> None:
    assert set(METRIC_TITLES) == METRICS

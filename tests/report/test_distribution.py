"""The drift of all clips in one drawing: every clip a dot, flips on top, the limit where it lies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from long_report import GATE, long_report

from vivit_export.bundle.checks import DriftReport, Gate
from vivit_export.report.distribution import MOST_DOTS, Distribution, distribution_of


def checks(clips: int = 20, worst: float = 0.0041) -> DriftReport:
    found = long_report(clips, worst=worst).checks
    assert found is not None
    return found


def drawn(report: DriftReport) -> Distribution:
    found = distribution_of(report)
    assert found is not None
    return found


def test_every_clip_is_a_dot_and_flips_are_drawn_last() -> None:
    found = drawn(checks())
    assert len(found.dots) == 20
    assert [dot.flip for dot in found.dots[-2:]] == ["near", "clear"] and found.flips == ("near", "clear")
    assert found.dots[-1].x == pytest.approx(100 / 1.05, abs=0.01)  # the largest
    assert len({dot.y for dot in found.dots}) == 20 and all(0 <= dot.y <= 100 for dot in found.dots)


def test_a_limit_far_away_is_told_but_not_drawn() -> None:
    assert drawn(checks()).limit is None and drawn(checks()).limit_text == "5 % of the range"
    assert drawn(checks(worst=0.0812)).limit == pytest.approx(100 * 0.05 / (1.05 * 0.0812), abs=0.01)
    without = replace(checks(), gate=Gate({"cosine": 0.9}))
    assert drawn(without).limit is None and drawn(without).limit_text == ""


def test_the_sentence_has_the_flips_and_the_middle() -> None:
    view = checks().view
    assert view is not None and view.drift[10] is not None
    assert drawn(checks()).sentence == (
        "1 clear flip and 1 near flip in 20 clips, drift at most 0.41 % of the range, median 0.17 % of the range, "
        "95th percentile 0.41 % of the range"
    )


def test_what_is_not_finite_lies_at_the_end() -> None:
    found = checks(3)
    assert found.view is not None
    view = replace(found.view, clips=(), drift=(None, 0.001, 0.0), flips=("none", "none", "none"))
    assert [dot.x for dot in drawn(replace(found, view=view)).dots] == [100.0, pytest.approx(95.24), 0.0]
    none = replace(view, drift=(None, None, None))
    assert drawn(replace(found, view=none)).sentence == "no flip in 3 clips, drift at most not finite"


def test_of_very_many_clips_the_worst_are_drawn() -> None:
    found = checks(5000)
    assert found.view is not None
    report = replace(found, clips=replace(found.clips, left_out=1_000_000))
    told = drawn(report)
    assert len(told.dots) == MOST_DOTS and max(dot.x for dot in told.dots) == pytest.approx(100 / 1.05, abs=0.01)
    assert [dot.flip for dot in told.dots[-2:]] == ["near", "clear"]
    assert told.sentence == (
        "1 clear flip and 1 near flip in 1005000 clips, drift at most 0.41 % of the range; the 4000 that drift most "
        "are drawn"
    )


def test_an_embedding_is_told_as_such() -> None:
    found = checks(3)
    assert found.view is not None
    other = drawn(replace(found, view=replace(found.view, measure="embedding")))
    assert other.measure == "1 minus the cosine of the embedding" and other.limit is None
    assert GATE.limits["max"] and other.limit_text == ""


def test_nothing_where_nothing_was_recorded() -> None:
    found = checks(3)
    assert found.view is not None
    for view in (None, replace(found.view, drift=(), flips=()), replace(found.view, flips=("none",))):
        assert distribution_of(replace(found, view=view)) is None

"""What is a regression against a stored check, and what is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from vivit_export.bundle.accuracy import Accuracy, Share, compare_hits
from vivit_export.bundle.baseline import Baseline, compare_checks
from vivit_export.bundle.checks import CheckedClips, DriftReport, Gate
from vivit_export.bundle.clip_view import ClipView, Flip
from vivit_export.errors import DriftError, InputError


def report(drift: Sequence[float | None], flips: Sequence[Flip] = (), names: Sequence[str] = ()) -> DriftReport:
    count = len(drift)
    flips = flips or ["none"] * count
    view = ClipView("logits", 0.02, (), 0, tuple(drift), (0.5,) * count, tuple(flips))
    clips = CheckedClips("mine", tuple(names) or tuple(f"{i}.mp4" for i in range(count)))
    return DriftReport("eager fp32", clips, Gate({"max": 1}), (), view=view)


def found(before: DriftReport, now: DriftReport) -> tuple[str, ...]:
    return compare_checks(now, before, "old.json").regressions


def test_the_same_result_is_no_regression() -> None:
    one = report([0.01, 0.02, 0.0])
    told = compare_checks(one, one, "old.json")
    assert told == Baseline("old.json", 3, 0, 0, 1.0, ())
    assert told.sentence.startswith("no regression against old.json (0 of 3 clips drift more than before and 0 less")


def test_clips_are_compared_by_name_and_not_by_place() -> None:
    before = report([0.01, 0.02, 0.03], names=("a", "b", "c"))
    now = report([0.03, 0.02, 0.01], names=("c", "b", "a"))
    told = compare_checks(now, before, "old.json")
    assert (told.larger, told.smaller, told.growth) == (0, 0, 1.0)


def test_a_check_that_lists_only_some_of_its_clips_is_refused() -> None:
    one = report([0.01, 0.02])
    part = replace(one, clips=replace(one.clips, left_out=5))
    with pytest.raises(InputError, match=r"^old.json lists only 2 of 7 clips, so nothing can be compared with it"):
        compare_checks(one, part, "old.json")
    with pytest.raises(InputError, match=r"^a check on 7 clips lists only 2 of them, .* clip by clip with old.json"):
        compare_checks(part, one, "old.json")


def test_a_new_clear_flip_is_a_regression_and_one_that_was_there_is_none() -> None:
    before = report([0.1, 0.1, 0.1], ["clear", "none", "near"])
    assert found(before, report([0.1, 0.1, 0.1], ["clear", "none", "near"])) == ()
    assert found(before, report([0.1, 0.1, 0.1], ["clear", "clear", "clear"])) == ("2 new clear flips in 1.mp4, 2.mp4",)


@pytest.mark.parametrize(("gained", "lost", "regresses"), [(5, 0, False), (6, 0, True), (9, 3, False), (12, 3, True)])
def test_flips_near_a_tie_come_and_go(gained: int, lost: int, regresses: bool) -> None:
    """Two-sided: 2/32 for 5 of 5, 2/64 for 6 of 6, 0.146 for 9 of 12, 0.035 for 12 of 15."""
    near: list[Flip] = ["near"]
    none: list[Flip] = ["none"]
    was = none * 15 + near * 5
    is_now = near * gained + none * (15 - gained + lost) + near * (5 - lost)
    before, now = report([0.1] * 20, was), report([0.1] * 20, is_now)
    assert bool(found(before, now)) == regresses
    assert found(now, now) == ()


def test_a_larger_drift_must_be_beyond_chance_and_large() -> None:
    before = report([0.01] * 8)
    (said,) = found(before, report([0.02] * 8))
    assert said == "the drift of the median clip grew 2 times, and that of 8 clips (p = 0.0078)"
    assert found(before, report([0.0149] * 8)) == ()
    assert found(before, report([0.02] * 5 + [0.01] * 3)) == ()  # 5 of 5 may be chance
    assert found(report([0.01] * 5), report([0.05] * 5)) == ()  # too few clips to be sure
    assert found(report([1e-9] * 8), report([5e-7] * 8)) == ()  # rounding in float32
    assert found(report([0.0] * 8), report([0.01] * 8))
    assert found(report([0.02] * 8), before) == ()


def test_values_that_are_no_numbers_are_a_regression_unless_they_were_there() -> None:
    before = report([0.1, None, 0.1])
    assert found(before, report([None, None, 0.1])) == ("NaN or infinite values in 0.mp4",)
    assert found(before, before) == ()


def accuracy(hits: int, of: int) -> Accuracy:
    right = [True] * hits + [False] * (of - hits)
    top1 = Share.of(hits, of)
    return Accuracy("labels.csv", of, top1, top1, (compare_hits(0, right, right, right),))


def test_accuracy_regresses_where_the_intervals_are_apart() -> None:
    before = replace(report([0.1] * 200), accuracy=accuracy(190, 200))
    assert found(before, replace(before, accuracy=accuracy(180, 200))) == ()
    assert found(before, replace(before, accuracy=accuracy(160, 200))) == (
        "top-1 accuracy fell from 95.0 % to 80.0 %, and the intervals are apart",
    )
    assert found(before, report([0.1] * 200)) == ()


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (report([0.1, 0.1], names=("a", "x")), "is of a check on 2 clips, which are not the 2 of this one, such as b;"),
        (report([0.1], names=("a",)), "is of a check on 1 clip, which are not the 2 of this one, such as b;"),
        (replace(report([0.1, 0.1], names=("a", "b")), view=None), "has no results for each clip, because an earlier"),
        (report([0.1, 0.1], names=("a", "b", "c")), "is incomplete"),
        (report([0.1, 0.1], names=("a", "a")), "is incomplete"),
    ],
)
def test_what_cannot_be_compared_is_refused(before: DriftReport, said: str) -> None:
    with pytest.raises(InputError, match=f"^old.json {said}"):
        compare_checks(report([0.1, 0.1], names=("a", "b")), before, "old.json")


def test_other_views_are_refused() -> None:
    one = report([0.1])
    more = replace(one, clips=replace(one.clips, views=(4, 3)))
    with pytest.raises(
        InputError, match=r"^old\.json is of a check with 4x3 views, and this one has 1x1; use the same$"
    ):
        compare_checks(one, more, "old.json")


def test_a_regression_fails_the_check() -> None:
    now = report([0.02] * 8)
    worse = replace(now, baseline=compare_checks(now, report([0.01] * 8), "old.json"))
    assert not worse.passed
    with pytest.raises(DriftError, match=r"the median clip grew 2 times.* against old\.json \(8 of 8 clips"):
        worse.require()

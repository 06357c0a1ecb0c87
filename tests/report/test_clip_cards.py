"""Clips that flipped or drifted most: what both models say, and where."""

from __future__ import annotations

from dataclasses import replace

from long_report import long_report

from vivit_export.bundle.checks import DriftReport
from vivit_export.report.clip_cards import cards_of, pictured_rows, strata_tables


def checks(clips: int = 8) -> DriftReport:
    found = long_report(clips).checks
    assert found is not None
    return found


def test_flips_come_first_with_what_both_say() -> None:
    cards = cards_of(checks(), {"kinetics/clip_00003.mp4": "data:x"})
    assert [card.flip for card in cards[:3]] == ["clear", "near", "none"] and len(cards) == 8
    clear, near, _ = cards[:3]
    assert (near.name, near.picture, clear.picture) == ("kinetics/clip_00003.mp4", "data:x", "")
    assert clear.words == (
        *("drift 0.41 % of the range", "margin 40 % of the range", "truth: archery", "onnxruntime 1.32.0 cpu, batch 8"),
        "eager fp16 flips too",
    )
    assert near.words[1] == "margin 1 % of the range, near a tie"
    assert [(row.label, row.value, row.is_new) for row in clear.reference] == [
        ("archery", "61.2 %", True),
        ("zumba", "24.9 %", True),
        ("abseiling", "10.0 %", False),
    ]
    assert [row.label for row in clear.ours] == ["zumba", "archery", "abseiling"]
    assert clear.reference[0].width == 61.2


def test_a_regression_and_what_is_not_finite_have_no_probability() -> None:
    found = checks()
    assert found.view is not None
    clip = found.view.clips[0]
    scores = (replace(clip.reference[0], probability=None), replace(clip.reference[1], probability=None, logit=None))
    odd = replace(clip, reference=scores, ours=(), run=99, nonfinite=2, max=None, flips_in=(99,), changed=("a", "b"))
    (card,) = cards_of(replace(found, view=replace(found.view, clips=(odd,))), {})
    assert [row.value for row in card.reference] == ["4.1", "not finite"]
    assert card.words[:4] == ("drift not finite", "margin 40 % of the range", "2 NaN or infinite", "changed: a, b")


def test_groups_have_no_column_of_zeros() -> None:
    by_class, by_rate = strata_tables(checks())
    assert by_class.caption == "By class" and by_rate.caption == "By fps (3 more, none worse)"
    assert by_class.columns == ("class", "clips", "near flips", "largest drift")
    assert by_class.rows[0] == ("archery", "7", "1", "0.41 % of the range")


def test_pictures_are_made_of_what_is_shown() -> None:
    assert pictured_rows(checks(500)) == [0, *range(1, 120)]
    assert pictured_rows(replace(checks(500), view=None)) == list(range(24))
    assert cards_of(replace(checks(), view=None), {}) == () and strata_tables(replace(checks(), view=None)) == ()

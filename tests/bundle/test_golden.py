"""Which clips of a check become golden clips."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vivit_export.bundle.golden import golden_rows, num_golden
from vivit_export.limits import MOST_GOLDEN_BYTES, MOST_GOLDEN_CLIPS


@given(st.integers(1, 10_000), st.integers(1, 4 * MOST_GOLDEN_BYTES))
def test_as_many_as_the_limits_allow_and_at_least_one(clips: int, size: int) -> None:
    kept = num_golden(clips, size)
    assert 1 <= kept <= min(clips, MOST_GOLDEN_CLIPS)
    assert kept == 1 or kept * size <= MOST_GOLDEN_BYTES
    assert kept == min(clips, MOST_GOLDEN_CLIPS) or (kept + 1) * size > MOST_GOLDEN_BYTES


@given(st.integers(0, 10_000), st.integers(1, MOST_GOLDEN_CLIPS))
def test_they_are_spaced_evenly(clips: int, kept: int) -> None:
    rows = golden_rows(clips, kept)
    assert len(rows) == kept and rows[0] == 0 and rows[-1] < max(clips, kept)
    steps = {after - before for before, after in pairwise(rows)}
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_all_of_them_are_themselves() -> None:
    assert golden_rows(8, 8) == list(range(8)) and golden_rows(0, 3) == [0, 1, 2]
    assert golden_rows(10, 4) == [0, 2, 5, 7]

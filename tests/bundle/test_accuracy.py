"""McNemar's exact test against counting all outcomes, and shares with their intervals."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb

import pytest

from vivit_export.bundle.accuracy import Share, compare_hits, mcnemar
from vivit_export.errors import InputError


def at_least_as_uneven(first: int, second: int) -> float:
    """Toss a coin for each clip in all possible ways, and count those that are at least as uneven."""
    total = first + second
    tosses = [sum(way) for way in product((0, 1), repeat=total)]
    return sum(abs(2 * heads - total) >= abs(first - second) for heads in tosses) / len(tosses)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (0, 5), (3, 3), (2, 9), (6, 1), (4, 5)])
def test_it_is_the_share_of_all_outcomes_that_are_as_uneven(first: int, second: int) -> None:
    assert mcnemar(first, second) == pytest.approx(at_least_as_uneven(first, second), rel=1e-12)
    assert mcnemar(first, second) == mcnemar(second, first)


@pytest.mark.parametrize(("first", "second"), [(0, 40), (59, 6), (500, 560), (5000, 5210)])
def test_it_is_exact_for_many_clips_too(first: int, second: int) -> None:
    total, least = first + second, min(first, second)
    exact = min(Fraction(1), Fraction(2 * sum(comb(total, k) for k in range(least + 1)), 2**total))
    assert mcnemar(first, second) == pytest.approx(float(exact), rel=1e-8)


def test_only_clips_that_one_of_the_two_misses_count() -> None:
    reference, ours = [True] * 90 + [False] * 10, [True] * 85 + [False] * 5 + [True] * 1 + [False] * 9
    found = compare_hits(3, reference, ours, [True] * 100)
    assert (found.run, found.only_reference, found.only_ours) == (3, 5, 1)
    assert found.p_value == pytest.approx(7 / 32)  # 2 * (1 + 6) / 64
    assert (found.top1.share, found.top5.share, found.top5.high) == (0.86, 1.0, 1.0)
    assert found.top1.low < 0.86 < found.top1.high


def test_a_stored_share_must_be_one() -> None:
    with pytest.raises(InputError, match=r"the share 0\.5 cannot have the interval 0\.6 to 0\.7; check the bundle"):
        Share(0.5, 0.6, 0.7)
    assert Share.of(0, 3).low == 0.0

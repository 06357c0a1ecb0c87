"""The ranking, and the search for the fewest layers to keep, on models that exist only as numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit_export.bundle.manifest import ClipsRecord, LayerEffect
from vivit_export.calibration.ranges import LayerRange, Ranges
from vivit_export.calibration.sensitivity import fewest_kept, measure, without_the_needless
from vivit_export.precision import Precision
from vivit_export.records import to_json

ERRORS = {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.3}
HARM = {"a": 4.0, "b": 1.0, "c": 2.0, "d": 8.0}  # what each layer adds to the logits


def ranges() -> Ranges:
    layers = {name: LayerRange(1, 1, None, None, error) for name, error in ERRORS.items()}
    return Ranges(Precision.INT8, "mse", {}, ClipsRecord("clips", 0), layers)


def rms(keep: Sequence[str]) -> float:
    return sum(harm for name, harm in HARM.items() if name not in keep)


def found(confirmed: int) -> list[LayerEffect]:
    counted: list[int] = []
    result = measure(ranges(), dict.fromkeys(ERRORS, 0.25), rms, counted.append, confirmed)
    assert sum(counted) == confirmed
    return result


def test_the_logits_decide_where_they_were_measured() -> None:
    assert [one.layer for one in found(4)] == ["d", "a", "c", "b"]
    assert {one.layer: one.alone for one in found(4)} == HARM
    assert {one.layer: one.without for one in found(4)} == {name: 15 - harm for name, harm in HARM.items()}


def test_the_error_of_the_output_decides_for_the_rest() -> None:
    ranked = found(2)  # b and d have the largest errors
    assert [one.layer for one in ranked] == ["d", "b", "c", "a"]
    assert [one.alone is None for one in ranked] == [False, False, True, True]
    assert to_json(ranked[-1]) == {"layer": "a", "error": 0.1, "alone": None, "without": None, "share": 0.25}


@given(st.integers(0, 60), st.integers(1, 60))
def test_the_fewest_layers_are_found_in_few_trials(needed: int, total: int) -> None:
    order = [str(i) for i in range(total)]
    trials: list[int] = []
    kept = fewest_kept(order, lambda keep: len(keep) >= needed, trials.append)
    assert kept == (tuple(order[:needed]) if needed <= total else None)
    assert len(trials) <= 2 * total.bit_length() + 2


@pytest.mark.parametrize("order", [[], ["a"]])
def test_where_nothing_helps_none_is_returned(order: list[str]) -> None:
    assert fewest_kept(order, lambda keep: False, lambda count: None) is None


@given(st.sets(st.integers(0, 9)), st.integers(0, 20))
def test_what_is_left_is_needed_and_no_more_is_tried_than_allowed(needed: set[int], most: int) -> None:
    trials: list[int] = []
    left = without_the_needless(range(10), lambda keep: needed <= set(keep), trials.append, most)
    assert needed <= set(left)
    assert len(trials) == min(most, 10)
    assert most < 10 or set(left) == needed
    assert list(left) == sorted(left)


def test_the_last_is_not_tried_again_where_it_is_known_to_be_needed() -> None:
    tried: list[Sequence[str]] = []

    def passes(keep: Sequence[str]) -> bool:
        tried.append(keep)
        return True

    assert without_the_needless("ab", passes, lambda _: None, 9, last_is_needed=True) == ("b",)
    assert tried == [["b"]]

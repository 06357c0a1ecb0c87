"""Spans by hand: what begins, goes on, is bridged, is dropped."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from vivit_export.errors import UsageError
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.spans import ActionSpan, SpanFinder, SpanRule

LABELS = ("a", "b", "c")
PLAIN = SpanRule(on=0.5, off=0.3, shortest=0, bridge=0)


Row = tuple[float, float, float]


def prediction(*scores: float) -> Prediction:
    """Scores of a model with several labels at once."""
    odds = np.array(scores, np.float64)
    return Prediction(np.log(odds / (1 - odds)).astype(np.float32), None, LABELS, "multi_label_classification")


def spans(rows: list[Row], rule: SpanRule, window: float = 1.0, hop: float = 1.0) -> list[ActionSpan]:
    found: list[ActionSpan] = []
    finder = SpanFinder("it", rule, top_k=2)
    for number, row in enumerate(rows):
        found += finder.push((number * hop, number * hop + window), prediction(*row))
    return [*found, *finder.finish()]


def edges(found: list[ActionSpan]) -> list[tuple[str, float, float]]:
    return [(span.label, round(span.start_seconds, 6), round(span.end_seconds, 6)) for span in found]


LOW, MIDDLE, HIGH = 0.1, 0.4, 0.9


def only_a(*scores: float) -> list[Row]:
    return [(score, LOW, LOW) for score in scores]


@pytest.mark.parametrize(
    ("scores", "rule", "expected"),
    [
        ((HIGH, HIGH, HIGH), PLAIN, [("a", 0, 3)]),
        ((LOW, HIGH, MIDDLE, MIDDLE, LOW), PLAIN, [("a", 1, 4)]),  # hysteresis
        ((LOW, MIDDLE, HIGH, LOW), PLAIN, [("a", 2, 3)]),  # but it begins high
        ((MIDDLE, MIDDLE), PLAIN, []),
        ((HIGH, LOW, HIGH), PLAIN, [("a", 0, 1), ("a", 2, 3)]),
        ((HIGH, LOW, HIGH), SpanRule(0.5, 0.3, 0, bridge=1.0), [("a", 0, 3)]),
        ((HIGH, LOW, MIDDLE), SpanRule(0.5, 0.3, 0, bridge=1.0), [("a", 0, 1)]),  # a gap ends high
        ((HIGH, LOW, LOW, HIGH), SpanRule(0.5, 0.3, 0, bridge=1.0), [("a", 0, 1), ("a", 3, 4)]),
        ((HIGH, LOW, HIGH, HIGH), SpanRule(0.5, 0.3, shortest=2.0, bridge=0), [("a", 2, 4)]),
        ((HIGH, LOW, HIGH, HIGH), SpanRule(0.5, 0.3, shortest=4.0, bridge=1.0), [("a", 0, 4)]),
        ((HIGH, LOW), SpanRule(0.5, 0.0, 0, 0), [("a", 0, 2)]),
    ],
)
def test_one_label(scores: tuple[float, ...], rule: SpanRule, expected: Any) -> None:
    assert edges(spans(only_a(*scores), rule)) == expected


def test_windows_that_overlap_stand_for_their_middles() -> None:
    """Windows of 1 s every 0.2 s, the label from the fourth on: half-way between the middles at 0.9 and 1.1 s."""
    found = spans(only_a(LOW, LOW, LOW, HIGH, HIGH), PLAIN, window=1.0, hop=0.2)
    assert edges(found) == [("a", 1.0, 1.8)]


def test_the_first_and_the_last_window_reach_to_the_ends() -> None:
    assert edges(spans(only_a(HIGH, HIGH), PLAIN, window=1.0, hop=0.2)) == [("a", 0, 1.2)]


def test_labels_have_spans_of_their_own() -> None:
    rows = [(HIGH, LOW, LOW), (HIGH, HIGH, LOW), (LOW, HIGH, LOW), (LOW, HIGH, HIGH)]
    assert edges(spans(rows, PLAIN)) == [("a", 0, 2), ("b", 1, 4), ("c", 3, 4)]


def test_scores_are_means_over_the_windows_of_the_span() -> None:
    rows = [(0.9, 0.2, 0.1), (0.1, 0.8, 0.1), (0.7, 0.1, 0.1)]
    (span, other) = sorted(spans(rows, SpanRule(0.5, 0.3, 0, bridge=1.0)), key=lambda span: span.start_seconds)
    assert span.score == pytest.approx(0.8, abs=1e-6)  # the gap does not count
    assert [label for label, _ in span.top] == ["a", "b"] and span.top[1][1] == pytest.approx(0.15, abs=1e-6)
    assert other.label == "b" and other.to_json()["top"][0] == {
        "label": "b",
        "probability": pytest.approx(0.8, abs=1e-6),
    }


def test_a_span_is_told_as_soon_as_it_has_ended() -> None:
    finder = SpanFinder("it", SpanRule(0.5, 0.3, 0, bridge=1.0))
    told = [len([*finder.push((n, n + 1.0), prediction(s, LOW, LOW))]) for n, s in enumerate((HIGH, LOW, LOW, LOW))]
    assert told == [0, 0, 0, 1]  # a gap of up to 1 s is bridged; that of 2 s is known with the window after it
    assert finder.open_since == math.inf and list(finder.finish()) == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"on": 0.0}, "span_on=0 must be a score above 0, and at most 1"),
        ({"on": float("nan")}, "span_on=nan"),
        ({"on": 1.5}, "span_on=1.5"),
        ({"on": 0.1}, "span_off=0.2 must be a score from 0 to span_on=0.1"),
        ({"shortest": -1.0}, "span_shortest=-1 must be a number of seconds, 0 or more"),
        ({"bridge": math.inf}, "span_bridge=inf must be"),
    ],
)
def test_rules_that_make_no_sense(fields: dict[str, float], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        SpanRule(**fields)
    assert sentence in str(raised.value)


def test_values_of_a_regression_have_no_spans() -> None:
    with pytest.raises(UsageError, match="not probabilities"):
        list(SpanFinder("it", PLAIN).push((0, 1), Prediction(np.zeros(2, np.float32), None, ("a", "b"), "regression")))

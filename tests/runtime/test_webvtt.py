"""Captions that a player shows: the blocks of https://www.w3.org/TR/webvtt1/#file-structure."""

from __future__ import annotations

import math
import re

from vivit_export.runtime.spans import ActionSpan
from vivit_export.runtime.webvtt import HEADER, InOrder, cue

TIMES = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})")


def span(start: float, end: float, *top: tuple[str, float], label: str | None = None) -> ActionSpan:
    return ActionSpan("it", start, end, label or top[0][0], top[0][1], top)


def test_a_cue() -> None:
    assert HEADER + cue(span(1.5, 3725.0004, ("left", 0.934), ("up", 0.05))) == (
        "WEBVTT\n\n00:00:01.500 --> 01:02:05.000\nleft 93 %\nup 5 %\n"
    )


def test_long_videos_have_hours_of_more_digits() -> None:
    assert "100:00:00.000 --> 100:00:01.000" in cue(span(360000, 360001, ("a", 1.0)))


def test_an_end_is_after_its_begin() -> None:
    start, end = cue(span(1.0001, 1.0002, ("a", 1.0))).splitlines()[1].split(" --> ")
    assert start < end and TIMES.fullmatch(f"{start} --> {end}")


def test_labels_are_text_not_markup() -> None:
    lines = cue(span(0, 1, ('a <b> & "c" --> d\ne', 1.0), ("\n", 0.5))).split("\n")
    assert lines[2:] == ['a &lt;b&gt; &amp; "c" --&gt; d e 100 %', "? 50 %", ""]


def test_the_label_of_the_span_comes_first() -> None:
    assert cue(span(0, 1, ("a", 0.6), ("b", 0.5), label="b")).splitlines()[2:] == ["b 60 %", "a 60 %"]


def test_cues_follow_each_other_by_their_begin() -> None:
    order, late, early = InOrder(), span(2, 3, ("late", 1.0)), span(0, 9, ("early", 1.0))
    assert list(order.release([late], open_since=0)) == []
    assert list(order.release([], open_since=0)) == []
    assert list(order.release([early], open_since=math.inf)) == [early, late]

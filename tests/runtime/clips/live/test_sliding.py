"""Sliding windows over frames that come one by one are those of a file."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivit_export.contract import Clip
from vivit_export.errors import ClipError
from vivit_export.runtime.clips.live.sliding import LiveWindow, SlidingWindows
from vivit_export.runtime.clips.sampling import clip_indices
from vivit_export.runtime.clips.video.index import Timeline
from vivit_export.runtime.clips.windows import Unit, WindowRule, plan_windows


def refuse(error: ClipError) -> None:
    raise error


def cut(starts: list[float], end: float, rule: WindowRule, clip: Clip) -> tuple[list[LiveWindow], int]:
    """The windows over frames that show their own number, and the most frames that were kept."""
    found: list[LiveWindow] = []
    windows, most = SlidingWindows(rule, clip, "it", refuse), 0
    for number, seconds in enumerate(starts):
        found += windows.push(seconds, np.full((1, 1, 3), number % 256, np.uint8), float(number))
        most = max(most, len(windows._kept))
    return [*found, *windows.finish(end)], most


steps = st.lists(st.sampled_from([0.0, 0.01, 0.04, 0.05, 0.3, 2.0]), min_size=1, max_size=60)


@settings(max_examples=300, deadline=None)
@given(
    steps,
    st.sampled_from([0.1, 0.4, 1.0, 3.0]),
    st.sampled_from([0.05, 0.4, 1.0, 4.0]),
    st.sampled_from(["seconds", "frames"]),
)
def test_the_same_windows_as_of_a_file(gaps: list[float], window: float, hop: float, unit: Unit) -> None:
    starts = (np.cumsum(gaps) - gaps[0]).tolist()
    end = starts[-1] + 0.04
    if unit == "frames":
        window, hop = round(window * 10), max(1, round(hop * 10))
    clip = Clip(4, 1, 1, (1, 1, 1), short="repeat")
    found, _ = cut(starts, end, WindowRule(window, hop, unit), clip)
    planned = plan_windows(Timeline(np.array(starts), end), window, hop, unit)
    assert [(w.first_frame, w.end_frame) for w in found] == [(s.first_frame, s.end_frame) for s in planned]
    for one, span in zip(found, planned, strict=True):
        assert (one.start_seconds, one.end_seconds) == pytest.approx((span.start_seconds, span.end_seconds), abs=2e-6)
        indices = span.first_frame + clip_indices(span.end_frame - span.first_frame, clip)
        assert one.frames[:, 0, 0, 0].tolist() == (indices % 256).tolist()
        assert one.arrived == span.end_frame - 1


@pytest.mark.parametrize(("window", "hop"), [(1.0, 0.2), (1.0, 1.0), (1.0, 3.0)])
def test_few_frames_are_kept(window: float, hop: float) -> None:
    starts = [number / 25 for number in range(2000)]
    _, most = cut(starts, 80.0, WindowRule(window, hop), Clip(4, 1, 1, (1, 1, 1)))
    assert most <= 25 * (window + hop) + 3


def test_a_clock_that_stands_still_does_not_fill_the_memory() -> None:
    windows = SlidingWindows(WindowRule(0.1), Clip(4, 1, 1, (1, 1, 1)), "it", refuse)
    frame = np.zeros((1, 1, 3), np.uint8)
    with pytest.raises(ClipError, match=r"the clock of it stands still: 1201 frames within 0\.00 s"):
        list(chain.from_iterable(windows.push(0.0, frame, 0.0) for _ in range(5000)))


def test_a_window_with_too_few_frames_is_refused_or_left_out() -> None:
    starts, clip = [0.0, 0.1, 0.2, 0.3, 0.4, 3.0, 3.1, 3.2, 3.3, 3.4], Clip(4, 1, 1, (1, 1, 1))
    with pytest.raises(ClipError, match=r"it: the window from 0\.50 s to 1\.00 s has 1 frame but the model takes 4"):
        cut(starts, 3.5, WindowRule(0.5), clip)
    left_out: list[ClipError] = []
    windows = SlidingWindows(WindowRule(0.5), clip, "it", left_out.append)
    found = [w for s in starts for w in windows.push(s, np.zeros((1, 1, 3), np.uint8), s)] + [*windows.finish(3.5)]
    assert [w.start_seconds for w in found] == [0.0, 3.0] and len(left_out) == 5


def test_no_frame_is_no_window() -> None:
    assert cut([], 0.0, WindowRule(1.0), Clip(4, 1, 1, (1, 1, 1)))[0] == []

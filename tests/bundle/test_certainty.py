"""How sure a check on few clips is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_records import drift_report

from vivit_export.bundle.certainty import certainty_of, clips_to_settle
from vivit_export.bundle.checks import CheckedClips, Drift, DriftReport, Gate, Run
from vivit_export.bundle.wilson import wilson_interval
from vivit_export.runtime.drift.metrics import compare

SHARES = st.floats(0, 1)


@given(share=SHARES, limit=SHARES)
@example(share=1.0, limit=0.99)
@example(share=1.0, limit=1.0)
@example(share=0.5, limit=0.0)
def test_so_many_clips_settle_it_and_one_less_does_not(share: float, limit: float) -> None:
    count = clips_to_settle(share, limit)
    if count is None:
        assert abs(share - limit) < 1e-150
        return
    if count > 10**9:  # where rounding decides
        return
    low, high = wilson_interval(share, count)
    assert low >= limit - 1e-9 or high <= limit + 1e-9
    if count > 1:
        low, high = wilson_interval(share, count - 1)
        assert low - 1e-9 <= limit <= high + 1e-9


def checked(*shares: float | None, limits: dict[str, float], clips: int = 8, gated: bool = True) -> DriftReport:
    """A check with a run for each share."""
    runs = [Run("x", 1, gated, drift(share)) for share in shares]
    names = tuple(f"{number}.mp4" for number in range(clips))
    return replace(drift_report(*runs), clips=CheckedClips("mine", names), gate=Gate(limits))


def drift(share: float | None) -> Drift:
    found = compare({"logits": np.eye(3, dtype=np.float32)}, {"logits": np.eye(3, dtype=np.float32)})
    return replace(found, top1=share)


def test_a_gate_on_eight_clips_says_how_many_would_settle_it() -> None:
    found = certainty_of(checked(1.0, 1.0, limits={"top1": 0.99}))
    assert found is not None and found.is_gated and not found.is_settled
    assert found.sentence == (
        "top-1 agreement is 100 % on 8 clips, and with 95 % confidence from 67.56 % to 100 % on all; 381 clips like "
        "these would settle whether it reaches 99 %"
    )


def test_the_lowest_share_counts_and_a_gate_without_one_is_measured_by_99_percent() -> None:
    found = certainty_of(checked(1.0, 0.75, limits={"max": 0.01}))
    assert found is not None and (found.top1, found.limit, found.is_gated) == (0.75, 0.99, False)


@pytest.mark.parametrize(("share", "clips"), [(1.0, 400), (0.5, 30), (0.99, 10)])
def test_what_is_settled_or_never_is_says_no_number(share: float, clips: int) -> None:
    found = certainty_of(checked(share, limits={"top1": 0.99}, clips=clips))
    assert found is not None and "would settle" not in found.sentence
    assert found.is_settled == (share != 0.99)


def test_what_decides_nothing_has_no_certainty() -> None:
    for report in (
        checked(limits={}),
        checked(None, limits={}),
        checked(1.0, limits={}, clips=0),
        checked(1.0, limits={}, gated=False),
    ):
        assert certainty_of(report) is None

"""What the gate of a stored check may say: only limits that some model could meet."""

from __future__ import annotations

import math

import pytest

from vivit_export.bundle.checks import CheckedClips, DriftReport, Gate
from vivit_export.errors import InputError
from vivit_export.precision import Precision


def checked(**limits: float) -> DriftReport:
    return DriftReport("eager fp32", CheckedClips("mine", ()), Gate(limits), ())


@pytest.mark.parametrize("limit", [2.0, math.inf, math.nan])
def test_a_share_above_all_is_refused(limit: float) -> None:
    with pytest.raises(InputError, match=r"^no model could pass the gate's top1=.*; check the bundle again$"):
        checked(top1=limit)


def test_a_difference_below_nothing_and_an_unknown_metric_are_refused() -> None:
    with pytest.raises(InputError, match=r"^no model could pass the gate's max=-0.1; "):
        checked(cosine=0.9, max=-0.1)
    with pytest.raises(InputError, match=r"^the gate limits 'speed', which is not a metric; "):
        checked(speed=1.0)


@pytest.mark.parametrize("precision", list(Precision))
def test_the_default_gates_are_accepted(precision: Precision) -> None:
    assert checked(**precision.gate).passed


@pytest.mark.parametrize("left_out", [-1, 10**13])
def test_clips_that_cannot_be_are_refused(left_out: int) -> None:
    with pytest.raises(InputError, match=rf"^left_out={left_out} is not a number of clips; check the bundle again$"):
        CheckedClips("mine", ("a.mp4",), left_out=left_out)
    assert CheckedClips("mine", ("a.mp4",), left_out=2).count == 3

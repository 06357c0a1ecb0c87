"""Options of a calibration that make no sense are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vivit_export.calibration.options import CalibrationOptions
from vivit_export.cli.flags import flag
from vivit_export.errors import UsageError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "max"}, "--calibration-method 'max' is not one of minmax, entropy, percentile, mse"),
        ({"smooth": "2"}, "--smooth '2' is neither auto, none, nor a number from 0 to 1"),
        ({"smooth": "much"}, "--smooth 'much' is neither"),
        ({"num_clips": 0}, "--calibration-clips 0 must be at least 1"),
        ({"seed": -1}, "--calibration-seed -1 must not be negative"),
        ({"data": (Path("x"),), "readers": 0}, "--readers 0 must be at least 1"),
        ({"data": (Path("x"),), "decode": "some"}, "--decode 'some' is not one of auto, full"),
        ({"readers": 2}, "--readers 2 is for videos; name some with --calibration-data DIR"),
        ({"decode": "full"}, "--decode full is for videos; name some with --calibration-data DIR"),
        ({"ranges": Path("x"), "method": "mse", "seed": 3}, "--ranges holds the result of a calibration"),
    ],
)
def test_options_that_make_no_sense(options: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        CalibrationOptions(**options)
    assert caught.value.worded(flag).startswith(said)

"""Orientations against the definition of the display matrix, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videos import ORIENTATIONS, shown_by

from vivit_export.runtime.clips.video.orientation import Orientation, angle_of, orientation_of

ONE = 65536


def matrix(a: int, b: int, c: int, d: int) -> tuple[int, ...]:
    return (a, b, 0, c, d, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_each_pixel_is_shown_where_the_matrix_says(name: str) -> None:
    picture = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    numbers = ORIENTATIONS[name]
    orientation = orientation_of(matrix(*(ONE * v for v in numbers)))
    assert orientation is not None
    np.testing.assert_array_equal(orientation.apply(picture), shown_by(numbers, picture))


def test_the_eight_are_different() -> None:
    found = {orientation_of(matrix(*numbers)) for numbers in ORIENTATIONS.values()}
    assert len(found) == 8 and None not in found


@pytest.mark.parametrize("numbers", [(0, 0, 0, 0), (0, 0, ONE, 0), (0, -ONE, 0, 0), (0, ONE, 0, -ONE)])
def test_a_matrix_that_squeezes_an_axis_turns_nothing(numbers: tuple[int, int, int, int]) -> None:
    assert angle_of(matrix(*numbers)) is None
    assert orientation_of(matrix(*numbers)) == Orientation()


@given(st.integers(0, 359), st.booleans())
def test_other_angles_have_none(degrees: int, mirrored: bool) -> None:
    sine, cosine = (round(ONE * f(math.radians(degrees))) for f in (math.sin, math.cos))
    sign = -1 if mirrored else 1
    numbers = matrix(cosine, sine, -sine * sign, cosine * sign)
    assert angle_of(numbers) == degrees
    assert (orientation_of(numbers) is None) == (degrees % 90 != 0)

"""Sizes and ranges along each axis, against transformers' own rules and Pillow's own weights."""

from __future__ import annotations

import numpy as np
import pillow_reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.image_transforms import center_crop, get_resize_output_image_size

from vivit_export.contract import Preprocess
from vivit_export.runtime.clips.pixels.axes import Axis, crop_axis, resized_size

sides = st.integers(1, 2000)


@given(height=sides, width=sides, short=st.integers(1, 500))
def test_the_shortest_edge_is_resized_as_transformers_does(height: int, width: int, short: int) -> None:
    image = np.zeros((3, height, width), np.bool_)
    expected = get_resize_output_image_size(
        image, size=short, default_to_square=False, input_data_format="channels_first"
    )
    assert resized_size(height, width, Preprocess(shortest_edge=short)) == expected


@given(height=sides, width=sides)
def test_a_given_size_is_taken_whatever_the_frame_is(height: int, width: int) -> None:
    assert resized_size(height, width, Preprocess(size=(30, 50), crop_size=(30, 50))) == (30, 50)


@given(resized=st.integers(1, 90), length=st.integers(1, 90))
@pytest.mark.field_case("lightly 1628")
def test_the_center_is_cut_and_padded_as_transformers_does(resized: int, length: int) -> None:
    row = np.arange(1, resized + 1, dtype=np.int64)
    expected = center_crop(row.reshape(1, 1, -1), (1, length), input_data_format="channels_first").reshape(-1)
    axis = crop_axis(resized, resized, length, 0.5)
    got = np.zeros(axis.length, np.int64)
    got[axis.pad : axis.pad + axis.kept] = row[axis.start : axis.stop]
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize(("position", "kept"), [(0.0, (0, 4)), (0.5, (3, 7)), (1.0, (6, 10))])
def test_a_crop_may_lie_at_either_end(position: float, kept: tuple[int, int]) -> None:
    axis = crop_axis(20, 10, 4, position)
    assert (axis.start, axis.stop) == kept
    assert axis == Axis(source=20, resized=10, start=kept[0], stop=kept[1], pad=0, length=4)


@settings(deadline=None)
@given(
    source=st.integers(1, 300),
    resized=st.integers(1, 300),
    length=st.integers(1, 300),
    position=st.sampled_from([0.0, 0.5, 1.0]),
    resample=st.sampled_from(pillow_reference.FILTERS),
)
def test_what_is_needed_holds_every_pixel_that_pillow_weighs(
    source: int, resized: int, length: int, position: float, resample: int
) -> None:
    axis = crop_axis(source, resized, length, position)
    low, high = axis.needed(resample)
    assert 0 <= low < high <= source
    weighed = np.flatnonzero(pillow_reference.weights(source, resized, resample)[axis.start : axis.stop].any(axis=0))
    assert low <= weighed.min() and weighed.max() < high

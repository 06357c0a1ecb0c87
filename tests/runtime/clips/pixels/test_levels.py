"""Operations on whole planes give the bits of transformers' arithmetic for each of the 256 levels, or are not used."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from preprocesses import CLIP, FRAMES, IMAGENET, NO_RESIZE, ODD, arithmetics

from vivit_export.contract import Preprocess
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.clips.pixels.levels import exact_steps, fewest_steps, make_table


@given(arithmetics())
@example(ODD)
@example(dataclasses.replace(NO_RESIZE, std=(-0.5, 0.5, 0.5), mean=(-1.0, -1.0, -1.0)))  # a zero with a sign
def test_pixel_values_are_the_bits_of_the_table(preprocess: Preprocess) -> None:
    out = np.full((3, 16, 24), np.nan, np.float32)
    Preprocessor(CLIP, preprocess).normalize(FRAMES[0], out)
    expected = [table[FRAMES[0, :, :, channel]] for channel, table in enumerate(make_table(preprocess))]
    np.testing.assert_array_equal(out.view(np.uint32), np.stack(expected).view(np.uint32))


@pytest.mark.parametrize(
    ("fields", "in_order", "fewest"),
    [
        ({}, ["Div", "Sub", "Sub", "Div"], ["Div", "Sub"]),
        ({"rescale_factor": 1 / 255}, ["Div", "Sub", "Sub", "Div"], ["Div", "Sub", "Sub", "Div"]),
        ({"rescale_factor": 1 / 255, "offset": False}, ["Div", "Sub", "Div"], ["Div", "Sub"]),
        ({"rescale_factor": 1 / 255, "offset": False, **IMAGENET}, ["Div", "Sub", "Div"], ["Div", "Sub", "Div"]),
        ({"do_normalize": False}, ["Div", "Sub"], ["Div", "Sub"]),
        ({"do_rescale": False, "offset": False, "do_normalize": False}, [], []),
    ],
)
def test_usual_checkpoints_need_no_table(fields: dict[str, Any], in_order: list[str], fewest: list[str]) -> None:
    preprocess = dataclasses.replace(NO_RESIZE, **fields)
    table = make_table(preprocess)
    for find, ops in ((exact_steps, in_order), (fewest_steps, fewest)):
        steps = find(preprocess, table)
        assert steps is not None
        assert [step.op for step in steps] == ops


def test_an_odd_factor_has_no_steps() -> None:
    assert fewest_steps(ODD, make_table(ODD)) is None

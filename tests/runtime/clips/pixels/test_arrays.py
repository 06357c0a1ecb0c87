"""Frames in tensors and other things than NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from videos import contract

from vivit_export.errors import ClipError
from vivit_export.export.checkpoint.load import hugging_face_pixels
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.clips.pixels.arrays import as_array

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8)


@pytest.fixture
def preprocessor() -> Preprocessor:
    made = contract(4)
    return Preprocessor(made.clip, made.preprocess)


def test_a_tensor_on_the_cpu_is_the_array_it_holds(preprocessor: Preprocessor) -> None:
    tensor = torch.from_numpy(FRAMES)
    assert np.shares_memory(as_array(tensor), FRAMES)
    expected = preprocessor(FRAMES)
    for frames in (tensor, list(tensor), tuple(tensor)):
        np.testing.assert_array_equal(preprocessor(frames), expected)  # type: ignore[arg-type]
    np.testing.assert_array_equal(preprocessor.crop(tensor[0]), preprocessor.crops(FRAMES)[0])  # type: ignore[arg-type]
    crops = preprocessor.crops(FRAMES)[None]
    np.testing.assert_array_equal(preprocessor.to_pixels(torch.from_numpy(crops)), expected)  # type: ignore[arg-type]


def test_arrays_images_and_all_else_are_left_alone() -> None:
    for value in (FRAMES, Image.fromarray(FRAMES[0]), "a.mp4", None, [FRAMES]):
        assert as_array(value) is value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2, requires_grad=True), r"^torch\.Tensor cannot be read as an array \(Can't call numpy\(\) on"),
        (
            torch.zeros(2, dtype=torch.bfloat16),
            r"^torch\.Tensor cannot be read as an array \(Got unsupported ScalarType",
        ),
        (
            torch.zeros(2, device="meta"),
            r"^torch\.Tensor cannot be read as an array .*\.detach\(\)\.cpu\(\)\.numpy\(\)$",
        ),
    ],
)
def test_a_tensor_that_numpy_cannot_read_is_one_sentence(value: Any, said: str) -> None:
    with pytest.raises(ClipError, match=said):
        as_array(value)


@pytest.mark.field_case("transformers 21981")
def test_channels_first_is_refused_by_its_shape(preprocessor: Preprocessor) -> None:
    frames: Any = torch.from_numpy(FRAMES).permute(0, 3, 1, 2)  # as torchvision and torchcodec have them
    with pytest.raises(ClipError, match=r"^frame 0 has shape \(3, 48, 64\), but \(height, width, 3\) is needed"):
        preprocessor(frames)


@pytest.mark.parametrize("height", [1, 3])
@pytest.mark.parametrize("width", [1, 3, 50])
def test_the_last_axis_is_the_channels_however_low_the_frame(
    preprocessor: Preprocessor, height: int, width: int
) -> None:
    """transformers would guess the first axis; told otherwise, it computes what we compute."""
    frames = FRAMES[:, :height, :width]
    np.testing.assert_array_equal(preprocessor(frames), hugging_face_pixels(preprocessor.preprocess, frames))

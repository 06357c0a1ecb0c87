"""From a file to pixel values: the runtime's way against transformers' own, on real clips, bit by bit."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from real_clips import NAMES, real_clip
from transformers import VivitImageProcessor
from transformers.pipelines.video_classification import read_video_pyav

from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.runtime import Preprocessor, read_clip
from vivit_export.runtime.clips.pixels.processor_config import installed_resize_order

PREPROCESS = Preprocess(shortest_edge=256, resize_order=installed_resize_order())


def vivit_b(sampling: str) -> Contract:
    tensor = Tensor("frames", "uint8", ("batch", 32, 224, 224, 3))
    return Contract(Clip(32, 224, 224, (2, 16, 16), sampling), PREPROCESS, IO("crops", (tensor,), ()))  # type: ignore[arg-type]


def transformers_pixels(path: Path, indices: list[int]) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = read_video_pyav(container, indices)
    pixels = VivitImageProcessor()(list(frames), return_tensors="np")["pixel_values"]
    assert isinstance(pixels, np.ndarray)
    return pixels


@pytest.mark.parametrize(("name", "sampling"), [*((name, "uniform") for name in NAMES), ("bikes.mp4", "head")])
def test_pixel_values_are_bit_equal(name: str, sampling: str) -> None:
    path, contract = real_clip(name), vivit_b(sampling)
    with av.open(str(path)) as container:
        total = sum(1 for _ in container.decode(video=0))
    if total < 32:
        pytest.skip(f"the clip has {total} frames")
    indices = [i * total // 32 for i in range(32)] if sampling == "uniform" else list(range(32))
    ours = Preprocessor(contract.clip, contract.preprocess)(read_clip(path, contract))
    expected = transformers_pixels(path, indices)
    assert ours.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(ours.view(np.uint32), expected.view(np.uint32))

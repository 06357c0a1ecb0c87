"""A contract of tiny clips, and files of such clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from made_clips import blurred
from safetensors.numpy import save_file

from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor

SHAPE = (4, 16, 16, 3)


@pytest.fixture
def contract() -> Contract:
    clip = Clip(4, 16, 16, (2, 8, 8))
    preprocess = Preprocess(shortest_edge=18, crop_size=(16, 16))
    return Contract(clip, preprocess, IO("crops", (Tensor("frames", "uint8", ("batch", *SHAPE)),), ()))


@pytest.fixture
def crops_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``count`` random clips, of pixels two wide, as noise is refused; ``change`` may alter them."""

    def write(
        count: int, change: Callable[[npt.NDArray[np.uint8]], object] = lambda crops: None, name: str = "crops"
    ) -> Path:
        crops = blurred(np.random.default_rng(0), count, SHAPE)
        change(crops)
        path = tmp_path / f"{name}.safetensors"
        save_file({"frames": crops}, path)
        return path

    return write

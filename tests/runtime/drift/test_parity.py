"""Preprocessing done twice, compared bit by bit: in the runtime, and in every form a graph has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles import Bundles, move_weights_out

from vivit_export.bundle import MODEL_DATA, Bundle
from vivit_export.bundle.checks import Parity
from vivit_export.errors import BundleError
from vivit_export.runtime.drift.parity import compare_pixels, graph_parity

PRECISIONS = ("fp32", "fp16", "bf16")
PIXELS: dict[str, Any] = {"input_mode": "pixels"}


def test_one_bit_is_a_difference() -> None:
    a = np.ones((1, 2, 3, 4, 4), np.float32)
    b = a.copy()
    b[0, 1, 2, 3, 3] = np.nextafter(np.float32(1), np.float32(2))
    found = compare_pixels("a", "b", b, a)
    assert (found.values, found.differing) == (96, 1)
    assert found.max_abs == pytest.approx(1.19e-7, rel=1e-2)
    both = found + compare_pixels("a", "b", a, a)
    assert (both.values, both.differing, both.max_abs) == (192, 1, found.max_abs)
    assert compare_pixels("a", "b", a, a).sentence == "a reproduces the pixel values of b bit for bit (96 values)"


def in_graph(bundle: Bundle, frames: npt.NDArray[np.uint8], crops: npt.NDArray[np.uint8]) -> Parity | None:
    return graph_parity(bundle.read, bundle.contract, bundle.manifest.precision, frames, crops)


@pytest.mark.needs_onnxruntime
def test_every_form_of_preprocessing_in_a_graph_is_compared(bundles: Bundles) -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (2, 8, 64, 64, 3), dtype=np.uint8)
    for options in ({"precision": p, "skip_rewrites": s} for p in PRECISIONS for s in ((), ("patch-embedding",))):
        found = in_graph(bundles.demo(**options), crops, crops)
        assert found is not None and (found.values, found.differing) == (crops.size, 0), options
    wrong = crops.copy()
    wrong[0, 0, 0, 0, 0] ^= 1
    for precision in PRECISIONS:
        found = in_graph(bundles.demo(precision=precision), crops, wrong)
        assert found is not None and found.differing == 1
    assert in_graph(bundles.demo(**PIXELS), crops, crops) is None


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("precision", PRECISIONS)
def test_constants_in_a_file_of_their_own_are_those_that_were_verified(
    bundles: Bundles, tmp_path: Path, precision: str
) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (1, 8, 64, 64, 3), dtype=np.uint8)
    bundle = move_weights_out(bundles.copy(tmp_path / "outside", precision=precision), smallest=0)
    found = in_graph(bundle, crops, crops)
    assert found is not None and (found.values, found.differing) == (crops.size, 0)
    with (bundle.path / MODEL_DATA).open("r+b") as file:
        file.write(b"\xff")
    with pytest.raises(BundleError, match=f"{MODEL_DATA} is not the file that bundle.json describes"):
        in_graph(bundle, crops, crops)

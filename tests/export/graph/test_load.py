"""A bundle's graph in onnx-ir: every weight as it was verified, wherever it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from bundles import Bundles, move_weights_out

from vivit_export.bundle import MODEL, MODEL_DATA
from vivit_export.errors import BundleError
from vivit_export.export.graph.load import load_verified


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_weights_outside_are_those_inside(bundles: Bundles, tmp_path: Path, precision: str) -> None:
    large = move_weights_out(bundles.copy(tmp_path / "large", precision=precision))
    found = load_verified(large)
    for name in (MODEL, MODEL_DATA):
        with (large.path / name).open("r+b") as file:  # in place: also whoever mapped the file would see it
            file.write(bytes(large.manifest.files[name].size))
    expected = ir.load(bundles.demo(precision=precision).model).graph.initializers
    assert list(found.graph.initializers) == list(expected)
    for name, value in found.graph.initializers.items():
        ours, theirs = value.const_value, expected[name].const_value
        assert ours is not None and theirs is not None
        assert (ours.name, ours.dtype, ours.shape) == (name, theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("name", [MODEL, MODEL_DATA])
def test_a_file_that_was_altered_is_refused(bundles: Bundles, tmp_path: Path, name: str) -> None:
    large = move_weights_out(bundles.copy(tmp_path / "large"))
    with (large.path / name).open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=f"{name} is not the file that bundle.json describes"):
        load_verified(large)

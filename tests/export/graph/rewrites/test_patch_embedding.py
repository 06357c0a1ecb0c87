"""The tubelet embedding as a product, with the pixel arithmetic in it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints
from graphs import ops, run_double, serialize, to_double
from rewriting import DEEP

from vivit_export.bundle.manifest import Declined
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.graph.pixels import prepend_pixels
from vivit_export.export.graph.rewrites import apply_rewrites, fold_pixels
from vivit_export.precision import Precision
from vivit_export.rewrite import REWRITE_NAMES
from vivit_export.runtime import Preprocessor


def test_a_convolution_that_overlaps_is_left_alone(checkpoints: Checkpoints) -> None:
    model = checkpoints.trace()
    (conv,) = ops(model, "Conv")
    conv.attributes["strides"] = ir.AttrInt64s("strides", [1, 8, 8])
    applied = apply_rewrites(model, Precision.FP16)
    assert applied.counts["patch-embedding"] == 0
    reason = "its tubelets overlap, or are padded: the stride is not the kernel"
    assert applied.declined == (Declined("patch-embedding", str(conv.name), reason),)
    assert ops(model, "Conv") == [conv]
    assert fold_pixels(model, np.zeros((3, 256), np.float32)) == 0


def levels(checkpoint: Checkpoint, num_clips: int) -> npt.NDArray[np.uint8]:
    clip = checkpoint.clip
    shape = (num_clips, clip.num_frames, clip.height, clip.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("others", [True, False])
def test_folded_pixels_give_the_same_logits(checkpoints: Checkpoints, others: bool) -> None:
    checkpoint = checkpoints.load(**DEEP)
    preprocessor = Preprocessor(checkpoint.clip, checkpoint.preprocess)
    skip = () if others else [name for name in REWRITE_NAMES if name != "patch-embedding"]
    crops = levels(checkpoint, 2)
    results = []
    for folded in (False, True):
        model = checkpoints.trace(**DEEP)
        apply_rewrites(model, Precision.FP16, skip)
        # Constants of the processor's arithmetic are float32: doubled afterward, they are the same.
        if not folded:
            assert prepend_pixels(model, preprocessor) == "arithmetic"
            model = to_double(model)
        else:
            model = to_double(model)
            assert fold_pixels(model, preprocessor.table) == 1
            assert prepend_pixels(model, preprocessor, folded=True) == "folded"
        results.append(run_double(model, crops))
    assert results[0].keys() == results[1].keys() == {"logits", "embedding"}
    for name, expected in results[0].items():
        np.testing.assert_allclose(results[1][name], expected, rtol=0, atol=1e-10)


def test_folded_levels_are_exact_in_every_type() -> None:
    import ml_dtypes

    centered = (np.arange(256) - 128) / 64
    for dtype in (np.float16, ml_dtypes.bfloat16):
        np.testing.assert_array_equal(centered.astype(dtype).astype(np.float64), centered)


def test_without_the_patch_rewrite_pixels_are_not_folded(checkpoints: Checkpoints) -> None:
    model = checkpoints.trace()
    before = serialize(model)
    assert fold_pixels(model, np.zeros((3, 256), np.float32)) == 0
    assert serialize(model) == before

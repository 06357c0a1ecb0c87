"""The pixel arithmetic in the graph gives the very bits of ``VivitImageProcessor``."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints
from graphs import ops, parse, run_ort
from hypothesis import example, given, settings
from pixels import hf_processor
from preprocesses import CLIP, FRAMES, IMAGENET, NO_RESIZE, ODD, arithmetics

from vivit_export.contract import Clip, Preprocess
from vivit_export.export.graph.pixels import prepend_pixels
from vivit_export.runtime import Preprocessor

Float32 = npt.NDArray[np.float32]

# Two uses of the input, so that replacing one is not enough.
BODY = "turned = Neg(pixel_values) low = Neg(turned) y = Max(low, pixel_values)"


def hugging_face(p: Preprocess) -> Float32:
    """What transformers makes of FRAMES, (1, T, 3, H, W)."""
    uncut = dataclasses.replace(p, do_resize=False, do_center_crop=False)
    pixels = hf_processor(uncut)(list(FRAMES), return_tensors="np")["pixel_values"]
    return np.asarray(pixels, np.float32)


def graph(p: Preprocess, clip: Clip = CLIP) -> tuple[ir.Model, str]:
    """A graph that hands on its pixel values, with the arithmetic in front; and the form that was chosen."""
    shape = f"float[batch, {clip.num_frames}, 3, {clip.height}, {clip.width}]"
    model = parse(f'<ir_version: 10, opset_import: ["" : 20]> g ({shape} pixel_values) => ({shape} y) {{ {BODY} }}')
    return model, prepend_pixels(model, Preprocessor(clip, p))


def assert_same_bits(got: npt.NDArray[Any], expected: Float32) -> None:
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.needs_onnxruntime
@settings(max_examples=150, deadline=None)
@given(arithmetics())
@example(NO_RESIZE)
@example(ODD)
@example(dataclasses.replace(ODD, do_normalize=False))
@example(dataclasses.replace(NO_RESIZE, do_rescale=False, offset=False, do_normalize=False))
@example(dataclasses.replace(NO_RESIZE, rescale_factor=1 / 255, offset=False))
def test_graph_gives_the_bits_of_the_processor(preprocess: Preprocess) -> None:
    model, _ = graph(preprocess)
    assert_same_bits(run_ort(model, FRAMES[None])["y"], hugging_face(preprocess))


@pytest.mark.parametrize(
    ("fields", "ops_used"),
    [
        ({}, ["Div", "Sub", "Sub", "Div"]),
        ({"rescale_factor": 1 / 255}, ["Div", "Sub", "Sub", "Div"]),
        ({"rescale_factor": 1 / 255, "offset": False, **IMAGENET}, ["Div", "Sub", "Div"]),
        ({"do_normalize": False}, ["Div", "Sub"]),
        ({"do_rescale": False, "offset": False, "do_normalize": False}, []),
    ],
)
def test_usual_checkpoints_need_no_table(fields: dict[str, Any], ops_used: list[str]) -> None:
    model, form = graph(dataclasses.replace(NO_RESIZE, **fields))
    assert form == "arithmetic"
    added = [node.op_type for node in model.graph if str(node.name).startswith("preprocess/")]
    assert added == ["Cast", "Transpose", *ops_used]


def test_constants_are_scalars_where_channels_agree() -> None:
    def shapes(preprocess: Preprocess) -> list[list[str]]:
        model, _ = graph(preprocess)
        return [list(map(str, value.shape or ())) for value in model.graph.initializers.values()]

    assert shapes(NO_RESIZE) == [[], [], [], []]
    assert shapes(dataclasses.replace(NO_RESIZE, mean=IMAGENET["mean"], std=IMAGENET["std"])) == [
        [],
        [],
        ["3", "1", "1"],
        ["3", "1", "1"],
    ]


def test_an_odd_factor_uses_the_table() -> None:
    model, form = graph(ODD)
    assert form == "table"
    (lookup,) = ops(model, "Gather")
    table = lookup.inputs[0]
    assert table is not None and table.const_value is not None
    expected = Preprocessor(CLIP, ODD).table
    np.testing.assert_array_equal(table.const_value.numpy(), expected.reshape(-1))
    assert len(np.unique(expected)) == 3 * 256


@pytest.mark.parametrize("preprocess", [NO_RESIZE, ODD])
def test_input_becomes_frames_of_the_clips_shape(preprocess: Preprocess) -> None:
    model, _ = graph(preprocess)
    (frames,) = model.graph.inputs
    assert (frames.name, frames.dtype) == ("frames", ir.DataType.UINT8)
    assert list(map(str, frames.shape or ())) == ["batch", "2", "16", "24", "3"]
    assert "pixel_values" not in {str(v.name) for node in model.graph for v in node.inputs if v is not None}


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("preprocess", [NO_RESIZE, ODD])
def test_clips_of_a_batch_are_kept_apart(preprocess: Preprocess) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 2, 16, 24, 3), dtype=np.uint8)
    got = run_ort(graph(preprocess)[0], crops)["y"]
    assert_same_bits(got, Preprocessor(CLIP, preprocess).to_pixels(crops))


@pytest.mark.needs_onnxruntime
def test_network_gives_the_same_logits_from_crops_as_from_pixels(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints.load()
    clip, preprocessor = checkpoint.clip, Preprocessor(checkpoint.clip, checkpoint.preprocess)
    crops = np.random.default_rng(0).integers(0, 256, (2, clip.num_frames, clip.height, clip.width, 3), dtype=np.uint8)
    from_pixels = run_ort(checkpoints.trace(), preprocessor.to_pixels(crops))
    model = checkpoints.trace()
    assert prepend_pixels(model, preprocessor) == "arithmetic"
    from_crops = run_ort(model, crops)
    for name, array in from_pixels.items():
        assert_same_bits(from_crops[name], array)

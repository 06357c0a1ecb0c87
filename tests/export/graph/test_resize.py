"""`--input frames`: Pillow's resize inside the graph, to the bit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pillow_reference
import pytest
from graphs import parse, run_ort
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vivit_export.contract import Clip, Preprocess, ResizeOrder
from vivit_export.errors import ClipError, UsageError
from vivit_export.export.graph.pixels import prepend_pixels
from vivit_export.export.graph.resize import MAX_TAPS, axis_weights, split_weights
from vivit_export.export.options import ExportOptions
from vivit_export.runtime import Preprocessor

sides = st.integers(20, 500)


def pixels_of(preprocessor: Preprocessor, height: int, width: int) -> ir.Model:
    """A graph that hands on its pixel values, with the whole pixel pipeline in front of it."""
    clip = preprocessor.clip
    shape = f"float[batch, {clip.num_frames}, 3, {clip.height}, {clip.width}]"
    body = "{ y = Identity(pixel_values) }"
    model = parse(f'<ir_version: 10, opset_import: ["" : 20]> g ({shape} pixel_values) => ({shape} y) {body}')
    prepend_pixels(model, preprocessor, (height, width))
    return model


@settings(deadline=None, max_examples=60)
@given(
    height=sides,
    width=sides,
    short=st.integers(16, 120),
    crop=st.tuples(st.integers(8, 100), st.integers(8, 100)),
    resample=st.integers(0, 5),
    order=st.sampled_from(["pillow-13", "horizontal-first"]),
    do_resize=st.booleans(),
    factor=st.sampled_from([1 / 127.5, 1 / 255, 0.0123]),
    seed=st.integers(0, 999),
)
@example(500, 120, 64, (64, 64), 2, "pillow-13", True, 1 / 127.5, 0)  # vertical pass first
@example(500, 120, 64, (64, 64), 2, "horizontal-first", True, 1 / 127.5, 0)
@example(40, 30, 20, (90, 99), 2, "pillow-13", True, 1 / 127.5, 0)  # zero padding on all sides
def test_the_graph_resizes_as_the_runtime_does(
    height: int,
    width: int,
    short: int,
    crop: tuple[int, int],
    resample: int,
    order: ResizeOrder,
    do_resize: bool,
    factor: float,
    seed: int,
) -> None:
    fields = Preprocess(
        do_resize=do_resize,
        shortest_edge=short,
        crop_size=crop,
        resample=resample,
        resize_order=order,
        rescale_factor=factor,
    )
    preprocessor = Preprocessor(Clip(2, *crop, (2, 1, 1)), fields)
    frames = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3)).astype(np.uint8)
    too_long = do_resize and any(
        (axis_weights(axis.source, axis.resized, resample) != 0).sum(axis=1).max() > MAX_TAPS
        for axis in preprocessor.axes(height, width)
    )
    assume(not too_long)
    got = run_ort(pixels_of(preprocessor, height, width), frames[None])["y"]
    assert np.array_equal(got, preprocessor(frames))


@given(source=st.integers(2, 700), target=st.integers(1, 300), resample=st.integers(1, 5))
def test_weights_are_pillows(source: int, target: int, resample: int) -> None:
    assert np.array_equal(axis_weights(source, target, resample), pillow_reference.weights(source, target, resample))


@given(source=st.integers(2, 900), target=st.integers(1, 400))
@example(312, 306)  # where adding up the centers and multiplying differ
def test_nearest_takes_the_pixel_that_pillow_takes(source: int, target: int) -> None:
    row = np.random.default_rng(0).integers(0, 256, (1, source, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(row).resize((target, 1), Image.Resampling.NEAREST))[0]
    assert np.array_equal((axis_weights(source, target, 0) @ row[0].astype(np.int64)) >> 22, expected)


def test_halves_add_up_and_sums_stay_exact_in_float32() -> None:
    weights = axis_weights(450, 32, 2)
    halves = split_weights(weights)
    high, low = np.split(halves.astype(np.int64), 2)
    assert np.array_equal((high << 11) + low, weights)
    assert low.min() >= 0
    assert 255 * halves.sum(axis=1).max() < 2**24


def test_a_filter_too_long_to_stay_exact_is_refused() -> None:
    with pytest.raises(UsageError, match=f"97 pixels go into one where {MAX_TAPS} stay exact"):
        split_weights(np.full((1, 97), (1 << 22) // 97))


def test_frames_that_do_not_end_up_at_the_models_size_are_refused() -> None:
    fields = Preprocess(do_center_crop=False, shortest_edge=16, crop_size=(16, 16))
    with pytest.raises(ClipError, match="20x40"):
        pixels_of(Preprocessor(Clip(2, 16, 16, (2, 8, 8)), fields), 20, 40)


@pytest.mark.parametrize("options", [{"input_mode": "frames"}, {"frame_size": (360, 640)}])
def test_the_two_options_belong_together(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="belong together"):
        ExportOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 640), (360, 20000)])
def test_a_size_no_camera_has_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="not a size of a video frame"):
        ExportOptions(input_mode="frames", frame_size=size)

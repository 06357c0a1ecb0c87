"""`Preprocessor` against ``VivitImageProcessor`` and against Pillow itself, bit by bit."""

from __future__ import annotations

import dataclasses
import itertools
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pillow_reference
import pytest
from bundles import Bundles
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pixels import CLIP, DEFAULT, hf_processor, noise
from transformers import VivitConfig, VivitImageProcessor

from vivit_export.contract import Clip, Preprocess, ResizeOrder
from vivit_export.errors import ClipError, InputError
from vivit_export.limits import MOST_SIDE
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.clips.pixels.axes import crop_axis, resized_size
from vivit_export.runtime.clips.pixels.processor_config import installed_resize_order

INSTALLED = installed_resize_order()
fuzz = settings(
    max_examples=int(os.environ.get("VIVIT_EXAMPLES", "150")),
    deadline=None,
    derandomize="VIVIT_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)


def preprocessor_for(p: Preprocess, num_frames: int, height: int, width: int) -> Preprocessor:
    """A preprocessor whose model takes what the fields make of frames of this size."""
    resized = resized_size(height, width, p) if p.do_resize else (height, width)
    return Preprocessor(Clip(num_frames, *(p.crop_size if p.do_center_crop else resized), (1, 1, 1)), p)


def assert_same_bits(p: Preprocess, frames: np.ndarray) -> None:
    got = preprocessor_for(p, *frames.shape[:3])(frames)
    # Frames that are 3 pixels high could also be taken for channels.
    expected = hf_processor(p)(list(frames), return_tensors="np", input_data_format="channels_last")["pixel_values"]
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    # Without rescale and normalize transformers returns uint8; the value is the same.
    np.testing.assert_array_equal(got.view(np.uint32), expected.astype(np.float32).view(np.uint32))


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """(height, width) from 20 to 2200; a third is more than twice as tall as wide (Pillow 13's case)."""
    short, long = (int(v) for v in sorted(np.exp(rng.uniform(np.log(20), np.log(2200), 2))))
    shape = rng.integers(3)
    if shape == 0:
        return min(2200, long + short), max(20, short // 2)
    return (long, short) if shape == 1 else (short, long)


def random_pipeline(rng: np.random.Generator) -> Preprocess:
    target = rng.integers(16, 300, 5).tolist()
    by_edge, do_rescale = rng.random() < 0.5, rng.random() < 0.8
    return Preprocess(
        do_resize=rng.random() < 0.8,
        shortest_edge=target[0] if by_edge else None,
        size=None if by_edge else (target[1], target[2]),
        resample=int(rng.integers(6)),
        do_center_crop=rng.random() < 0.8,
        crop_size=(target[3], target[4]),
        do_rescale=do_rescale,
        rescale_factor=float(rng.choice([1 / 127.5, 1 / 255, 0.0078125, 1.0, rng.random()])),
        offset=do_rescale and rng.random() < 0.5,
        do_normalize=rng.random() < 0.8,
        mean=tuple(rng.uniform(-1, 2, 3).tolist()),
        std=tuple(rng.uniform(0.05, 2, 3).tolist()),
        resize_order=INSTALLED,
    )


def random_case(rng: np.random.Generator) -> tuple[Preprocess, tuple[int, int]]:
    """A pipeline and a (height, width); what is resized to more than a clip may have is cropped in any case."""
    pipeline, size = random_pipeline(rng), random_size(rng)
    beyond = pipeline.do_resize and max(resized_size(*size, pipeline)) > MOST_SIDE
    return (dataclasses.replace(pipeline, do_center_crop=True) if beyond else pipeline), size


# Hypothesis draws the seed only: drawn one by one, the fields cluster at their simplest values and
# whole filters go untried.
@fuzz
@given(seed=st.integers(0, 2**32 - 1), num_frames=st.integers(1, 2))
def test_default_pipeline_is_bit_equal(seed: int, num_frames: int) -> None:
    height, width = random_size(np.random.default_rng(seed))
    assert_same_bits(Preprocess(shortest_edge=256, resize_order=INSTALLED), noise(num_frames, height, width, seed))


@fuzz
@given(seed=st.integers(0, 2**32 - 1))
def test_any_pipeline_is_bit_equal(seed: int) -> None:
    pipeline, (height, width) = random_case(np.random.default_rng(seed))
    assert_same_bits(pipeline, noise(1, height, width, seed))


@pytest.mark.parametrize(
    ("height", "width"),
    [(2340, 1080), (1080, 1920), (1920, 1080), (240, 320), (224, 224), (256, 256), (256, 300), (900, 300), (60, 25)],
)
def test_common_sizes_are_bit_equal(height: int, width: int) -> None:
    assert_same_bits(Preprocess(shortest_edge=256, resize_order=INSTALLED), noise(2, height, width))


@fuzz
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=212)  # 3 pixels high
@pytest.mark.field_case("Model-Optimizer 106")
def test_frames_that_have_the_size_already_are_bit_equal(seed: int) -> None:
    """They are not resized: by the shorter edge or by both, with crops within the frame and beyond it."""
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(1, 400, 2))
    by_edge = rng.random() < 0.5
    p = dataclasses.replace(
        random_pipeline(rng),
        do_resize=True,
        shortest_edge=min(height, width) if by_edge else None,
        size=None if by_edge else (height, width),
    )
    assert resized_size(height, width, p) == (height, width)
    assert_same_bits(p, noise(1, height, width, seed))


@fuzz
@given(seed=st.integers(0, 2**32 - 1))
def test_a_crop_overwrites_all_that_its_place_held(seed: int) -> None:
    p, size = random_case(np.random.default_rng(seed))
    preprocessor, frames = preprocessor_for(p, 1, *size), noise(1, *size, seed)
    expected = preprocessor.crops(frames)[0]
    out = np.full_like(expected, 77)
    preprocessor.write(frames[0], out)
    np.testing.assert_array_equal(out, expected)
    pixels = np.full((1, 3, *out.shape[:2]), np.nan, np.float32)
    preprocessor.write_clip(frames, pixels)
    np.testing.assert_array_equal(pixels[None].view(np.uint32), preprocessor(frames).view(np.uint32))


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("switches", [s for s in itertools.product([True, False], repeat=5) if s[2] or not s[3]])
def test_every_combination_of_switches(switches: tuple[bool, ...], resample: int) -> None:
    do_resize, do_center_crop, do_rescale, offset, do_normalize = switches
    p = Preprocess(
        do_resize=do_resize,
        shortest_edge=48,
        resample=resample,
        do_center_crop=do_center_crop,
        crop_size=(41, 60),  # rows are cut, columns are padded
        do_rescale=do_rescale,
        offset=offset,
        do_normalize=do_normalize,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resize_order=INSTALLED,
    )
    assert_same_bits(p, noise(2, 130, 57))


@pytest.mark.parametrize("vertical_first", [False, True])
@pytest.mark.parametrize("resample", pillow_reference.FILTERS)
def test_both_pass_orders_match_pillows_passes(resample: int, vertical_first: bool) -> None:
    """Each recorded order is forced, whatever the installed Pillow does by itself."""
    rng = np.random.default_rng(resample)
    for _ in range(12):
        height, width, out_height, out_width = (int(v) for v in rng.integers(5, 150, 4))
        if vertical_first and not height - out_height > max(0, 2 * (width - out_width)):
            height, out_height, out_width = 150, int(rng.integers(5, 100)), width
        order: ResizeOrder = "pillow-13" if vertical_first else "horizontal-first"
        p = Preprocess(size=(out_height, out_width), resample=resample, do_center_crop=False, resize_order=order)
        frames = noise(1, height, width)
        got = preprocessor_for(p, *frames.shape[:3]).crops(frames)[0]
        np.testing.assert_array_equal(
            got, pillow_reference.resize(frames[0], out_height, out_width, resample, vertical_first)
        )
        if resample in pillow_reference.WITHOUT_LOBES:  # else 8 bits clip between the passes
            unrounded = pillow_reference.resize_unrounded(frames[0], out_height, out_width, resample)
            assert np.abs(got - unrounded).max() < 1.01  # half a level in each pass, and what weights are rounded by


def test_the_reference_takes_the_installed_order_where_pillow_is_asked_at_once() -> None:
    for height, width, out_height, out_width in ((90, 70, 40, 50), (700, 200, 280, 80), (20, 30, 90, 60)):
        frame = noise(1, height, width)[0]
        p = Preprocess(size=(out_height, out_width), do_center_crop=False, resize_order=INSTALLED)
        vertical_first = preprocessor_for(p, 1, height, width).vertical_first(
            *(crop_axis(s, r, r, 0.5) for s, r in ((height, out_height), (width, out_width)))
        )
        at_once = np.asarray(Image.fromarray(frame).resize((out_width, out_height), Image.Resampling(p.resample)))
        got = pillow_reference.resize(frame, out_height, out_width, p.resample, vertical_first)
        np.testing.assert_array_equal(got, at_once)


@pytest.mark.parametrize("resample", pillow_reference.FILTERS)
def test_the_references_weights_give_pillows_bytes(resample: int) -> None:
    for source, target in ((150, 40), (31, 97), (64, 64), (500, 7)):
        row = noise(1, 6, source)[0]
        weights, half = pillow_reference.weights(source, target, resample), 1 << (pillow_reference.BITS - 1)
        sums = np.einsum("ts,hsc->htc", weights, row.astype(np.int64))
        expected = np.clip((sums + half) >> pillow_reference.BITS, 0, 255)
        np.testing.assert_array_equal(pillow_reference.resize(row, 6, target, resample, False), expected)


def test_the_two_orders_differ_where_pillow_changed() -> None:
    """A tall frame that shrinks: the case that Pillow 13 turned round."""
    frames = noise(1, 700, 200)
    crops = {
        order: Preprocessor(
            Clip(1, 64, 64, (1, 1, 1)), Preprocess(shortest_edge=80, crop_size=(64, 64), resize_order=order)
        ).crops(frames)
        for order in ("pillow-13", "horizontal-first")
    }
    difference = np.abs(crops["pillow-13"].astype(int) - crops["horizontal-first"])
    assert 0.05 < (difference > 0).mean() < 0.5
    assert difference.max() <= 2


@pytest.mark.field_case("PyAV 1635")
def test_accepts_arrays_lists_and_pillow_images() -> None:
    pre, frames = Preprocessor(CLIP, DEFAULT), noise(4, 60, 80)
    before = frames.copy()
    expected = pre(frames)
    frames.setflags(write=False)
    images = [Image.fromarray(f) for f in frames]
    for form in (list(frames), tuple(frames), images, [np.asfortranarray(f) for f in frames], [images[0]] * 4):
        same = expected if form[-1] is not images[0] else np.repeat(expected[:, :1], 4, axis=1)
        np.testing.assert_array_equal(pre(form), same)
    mirrored = np.ascontiguousarray(frames[:, :, ::-1])
    np.testing.assert_array_equal(pre(frames[:, :, ::-1]), pre(mirrored))
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        (noise(3, 60, 80), "has 3 frames but the model takes 4"),
        (np.zeros((0, 60, 80, 3), np.uint8), "has 0 frames"),
        ([], "has 0 frames"),
        (noise(4, 60, 80) / np.float32(255), r"frame 0 is a float32 array .* but uint8"),
        (noise(4, 60, 80).astype(np.int64), "int64"),
        (noise(4, 60, 80)[..., :1], "channels last"),
        (noise(4, 60, 80).transpose(0, 3, 1, 2), "channels last"),
        (noise(4, 60, 80)[..., 0], r"\(T, h, w, 3\)"),
        (noise(4, 60, 80)[None], r"\(T, h, w, 3\)"),
        (noise(4, 60, 80)[0], r"\(T, h, w, 3\)"),
        ([*noise(3, 60, 80), noise(1, 50, 80)[0]], "frame 3 is 50x80 but frame 0 is 60x80"),
        ([Image.new("L", (80, 60))] * 4, r"mode L; convert it with .convert\('RGB'\)"),
        ([Image.new("RGBA", (80, 60))] * 4, "mode RGBA"),
        (np.zeros((4, 0, 80, 3), np.uint8), "holds no pixels"),
        ([None] * 4, "frame 0 is NoneType"),
        ("video.mp4", "got str"),
        (None, "got NoneType"),
        (iter(noise(4, 60, 80)), "a list of RGB Pillow images, got"),
    ],
)
@pytest.mark.field_case("opencv 22134")
def test_refuses_other_frames(frames: Any, sentence: str) -> None:
    with pytest.raises(ClipError, match=sentence):
        Preprocessor(CLIP, DEFAULT)(frames)


def test_refuses_a_size_that_does_not_reach_the_model() -> None:
    pre = Preprocessor(CLIP, dataclasses.replace(DEFAULT, do_center_crop=False))
    with pytest.raises(ClipError, match="60x80 become 48x64 but the model takes 32x40"):
        pre(noise(4, 60, 80))


@pytest.mark.field_case("notebooks 261")
def test_refuses_a_crop_that_is_not_the_models() -> None:
    with pytest.raises(InputError, match=r"makes frames of 224x224 .* but the model takes 32x40"):
        Preprocessor(CLIP, Preprocess(shortest_edge=256))


def test_crops_and_pixels_are_the_two_halves() -> None:
    pre = Preprocessor(CLIP, DEFAULT)
    batch = np.stack([pre.crops(noise(4, 60, 80, seed)) for seed in range(3)])
    pixels = pre.to_pixels(batch)
    assert pixels.shape == (3, 4, 3, 32, 40) and pixels.dtype == np.float32
    for i, seed in enumerate(range(3)):
        np.testing.assert_array_equal(pixels[i : i + 1], pre(noise(4, 60, 80, seed)))
    np.testing.assert_array_equal(pixels[:, :, 1], pre.table[1][batch[..., 1]])
    assert pre.to_pixels(batch[:0]).shape == (0, 4, 3, 32, 40)


@pytest.mark.parametrize("crops", [noise(4, 32, 40), noise(4, 32, 40)[None].astype(np.float32), noise(4, 40, 32)[None]])
def test_to_pixels_refuses_other_crops(crops: np.ndarray) -> None:
    with pytest.raises(ClipError, match=r"crops must be a uint8 array \(B, 4, 32, 40, 3\), got a"):
        Preprocessor(CLIP, DEFAULT).to_pixels(crops)


def test_table_has_the_processors_values_and_is_read_only() -> None:
    table = Preprocessor(CLIP, DEFAULT).table
    assert table.shape == (3, 256) and table.dtype == np.float32
    assert table[0, [0, 255]].tolist() == [-3.0, 1.0]  # not [-1, 1]: offset and normalize both center
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 0


def test_from_pretrained_reads_what_transformers_saved(tmp_path: Any) -> None:
    VivitConfig(image_size=[32, 48], num_frames=4, tubelet_size=[2, 16, 16]).save_pretrained(tmp_path)
    processor = VivitImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 48}, image_mean=[0.1, 0.2, 0.3], resample=3
    )
    processor.save_pretrained(tmp_path)
    pre, frames = Preprocessor.from_pretrained(tmp_path), noise(4, 70, 60)
    assert pre.clip == Clip(4, 32, 48, (2, 16, 16))
    expected = processor(list(frames), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(pre(frames), expected)


def test_from_bundle_reads_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = SimpleNamespace(clip=CLIP, preprocess=DEFAULT)
    monkeypatch.setattr("vivit_export.bundle.read_bundle", lambda path: SimpleNamespace(contract=contract, path=path))
    pre = Preprocessor.from_bundle("out")
    assert (pre.clip, pre.preprocess) == (CLIP, DEFAULT)


def test_from_bundle_takes_a_bundle_that_was_read(bundles: Bundles) -> None:
    bundle = bundles.demo()
    pre = Preprocessor.from_bundle(bundle)
    assert (pre.clip, pre.preprocess) == (bundle.contract.clip, bundle.contract.preprocess)

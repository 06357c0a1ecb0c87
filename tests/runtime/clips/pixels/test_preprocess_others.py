"""Processors of VideoMAE, TimeSformer and V-JEPA 2: their JSON is read as by transformers, the pixels are its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
)

from vivit_export.contract import Clip
from vivit_export.errors import CheckpointError
from vivit_export.export.checkpoint.load import hugging_face_pixels, image_processor
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor
from vivit_export.runtime.clips.pixels.processor_config import read_preprocess

CROP = {"crop_size": {"height": 24, "width": 24}}
# As people's folders have them: of transformers 4 and 5, of a TimeSformer of Facebook's, and with switches.
JSONS: dict[str, dict[str, Any]] = {
    "defaults": {"image_processor_type": "VideoMAEImageProcessor", **CROP},
    "version-5": {"image_processor_type": "VideoMAEImageProcessorPil", "size": {"shortest_edge": 30}, **CROP},
    "feature-extractor": {
        "feature_extractor_type": "VideoMAEFeatureExtractor",
        "size": 28,
        "crop_size": 24,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
    },
    "timesformer": {
        "image_processor_type": "VideoMAEImageProcessor",
        "image_mean": [0.45, 0.45, 0.45],
        "image_std": [0.225, 0.225, 0.225],
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 24, "width": 32},
        **CROP,
    },
    "not-normalized": {"image_processor_type": "VideoMAEImageProcessor", "do_normalize": False, **CROP},
    "not-rescaled": {"image_processor_type": "VideoMAEImageProcessor", "do_rescale": False, "do_resize": False, **CROP},
    "an offset is not a field of it": {"image_processor_type": "VideoMAEImageProcessor", "offset": True, **CROP},
}


@settings(max_examples=8, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("fields", JSONS.values(), ids=JSONS)
def test_pixels_are_bit_equal(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], height: int, width: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("processor")
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    frames = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    processor = image_processor("VideoMAEImageProcessor").from_pretrained(folder)
    expected = processor(list(frames), input_data_format="channels_last", return_tensors="np")["pixel_values"]
    preprocess = read_preprocess(folder, (24, 24), "VideoMAEImageProcessor")
    found = Preprocessor(Clip(2, 24, 24, (2, 8, 8)), preprocess)(frames)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("VideoMAEVideoProcessor", IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
        ("TimesformerVideoProcessor", IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    ],
)
def test_fields_of_a_video_processor_are_read(tmp_path: Path, name: str, mean: list[float], std: list[float]) -> None:
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"video_processor_type": name, **CROP}))
    found = read_preprocess(tmp_path, (24, 24), "VideoMAEImageProcessor")
    assert (found.shortest_edge, found.rescale_factor, found.offset) == (224, 1 / 255, False)
    assert (found.mean, found.std) == (tuple(mean), tuple(std))


@pytest.mark.parametrize(
    ("fields", "crop", "shortest_edge"),
    [
        ({}, (256, 256), 292),
        ({"crop_size": 224}, (224, 224), 256),
        ({"crop_size": {"height": 384, "width": 384}}, (384, 384), 438),
        # VJEPA2VideoProcessor.__init__ puts its own size in place of the one in the file.
        ({"crop_size": {"height": 100, "width": 100}, "size": {"shortest_edge": 512}}, (100, 100), 114),
    ],
    ids=str,
)
def test_vjepa2_works_out_the_size_from_the_crop(
    tmp_path: Path, fields: dict[str, Any], crop: tuple[int, int], shortest_edge: int
) -> None:
    name = "VJEPA2VideoProcessor"
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"video_processor_type": name, **fields}))
    found = read_preprocess(tmp_path, (16, 16), name)
    assert (found.crop_size, found.shortest_edge, found.size, found.offset) == (crop, shortest_edge, None, False)
    assert (found.mean, found.std) == (tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD))
    switched_off = {"video_processor_type": name, **fields, "do_resize": False}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(switched_off))
    assert read_preprocess(tmp_path, (16, 16), name).shortest_edge is None


@pytest.mark.parametrize("crop", [None, [256, 256], {"width": 256}, {"height": None, "width": 1}, True, "256"], ids=str)
def test_a_crop_that_vjepa2_cannot_enlarge_is_refused(tmp_path: Path, crop: object) -> None:
    fields = {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": crop}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="crop_size must be a whole number, or have a height, got"):
        read_preprocess(tmp_path, (16, 16), "VJEPA2VideoProcessor")


@settings(max_examples=8, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(0, 2**32 - 1))
def test_pixels_of_vjepa2_are_those_of_pillow(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    """Its own class needs torchvision, which differs by one level here and there (docs/families.md)."""
    folder = tmp_path_factory.mktemp("processor")
    fields = {"video_processor_type": "VJEPA2VideoProcessor", **CROP}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(fields))
    frames = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    preprocess = read_preprocess(folder, (24, 24), "VJEPA2VideoProcessor")
    pillow = image_processor("VideoMAEImageProcessor")(
        size={"shortest_edge": 27}, **CROP, image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD
    )
    expected = pillow(list(frames), input_data_format="channels_last", return_tensors="np")["pixel_values"]
    found = Preprocessor(Clip(2, 24, 24, (2, 8, 8)), preprocess)(frames)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(hugging_face_pixels(preprocess, frames), expected)


def test_a_json_without_a_class_is_the_familys(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CROP))
    found = read_preprocess(tmp_path, (24, 24), "VideoMAEImageProcessor")
    assert (found.processor, found.shortest_edge, found.offset) == ("VideoMAEImageProcessor", 224, False)
    assert read_preprocess(tmp_path, (24, 24)).offset

"""The checkpoint's JSON is read as ``VivitImageProcessor`` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import VivitConfig, VivitForVideoClassification, VivitImageProcessor

from vivit_export.contract import Clip, Preprocess
from vivit_export.errors import CheckpointError, InputError
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.clips.pixels.processor_config import (
    doubt_about,
    installed_resize_order,
    read_clip_geometry,
    read_preprocess,
)

CROP = {"crop_size": {"height": 24, "width": 20}}
FRAMES = np.random.default_rng(0).integers(0, 256, (2, 50, 43, 3), dtype=np.uint8)


def write(folder: Path, name: str, data: Any) -> None:
    (folder / name).write_text(data if isinstance(data, str) else json.dumps(data))


READABLE: list[dict[str, Any]] = [
    {},
    CROP,
    {"size": {"shortest_edge": 31}, **CROP},
    {"size": {"shortest_edge": 31, "longest_edge": 33}, **CROP},
    {"size": 31, **CROP},
    {"size": [40, 30], **CROP},
    {"size": {"height": 40, "width": 30}, **CROP},
    {"size": None, "crop_size": 24},
    {"crop_size": [24, 60]},
    {"crop_size": None},
    *({"resample": n, **CROP} for n in range(6)),
    {"do_resize": False, "resample": None, **CROP},
    {"do_resize": None, "size": {"longest_edge": 9}, **CROP},
    {"do_center_crop": False, "size": {"height": 24, "width": 20}},
    {"do_center_crop": None, "size": [24, 20], "crop_size": {"shortest_edge": 3}},
    {"do_rescale": False, "offset": False, "rescale_factor": None, **CROP},
    {"do_rescale": None, "offset": None, "do_normalize": False, **CROP},
    {"offset": False, "rescale_factor": 1 / 255, **CROP},
    {"offset": None, "rescale_factor": 1, **CROP},
    {"do_normalize": False, "image_mean": [1, 2], **CROP},
    {"image_mean": 0.4, "image_std": 0.2, **CROP},
    {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], **CROP},
    {"image_mean": None, "image_std": [1, 2, 3], **CROP},
    {"image_processor_type": "VivitImageProcessor", "processor_class": "X", "unknown": 1, **CROP},
    {"image_processor_type": "VivitImageProcessorFast", **CROP},
]


@pytest.mark.parametrize("fields", READABLE, ids=json.dumps)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.field_case("notebooks 326")
def test_reads_what_transformers_reads(tmp_path: Path, fields: dict[str, Any], nested: bool) -> None:
    name = "processor_config.json" if nested else "preprocessor_config.json"
    write(tmp_path, name, {"image_processor": fields} if nested else fields)
    expected = VivitImageProcessor.from_pretrained(tmp_path)(list(FRAMES), return_tensors="np")["pixel_values"]
    height, width = expected.shape[-2:]
    preprocess = read_preprocess(tmp_path, default_crop=(height, width))
    got = Preprocessor(Clip(2, height, width, (1, 1, 1)), preprocess)(FRAMES)
    np.testing.assert_array_equal(got.view(np.uint32), expected.astype(np.float32).view(np.uint32))


def test_class_defaults_stand_in_for_missing_fields(tmp_path: Path) -> None:
    write(tmp_path, "preprocessor_config.json", {})
    expected = Preprocess(shortest_edge=256, resize_order=installed_resize_order())
    assert read_preprocess(tmp_path, default_crop=(32, 32)) == expected


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"size": {"longest_edge": 9}}, "size must have shortest_edge, or height and width"),
        ({"size": {"height": 9}}, "size must have"),
        ({"size": "big"}, "size must be a positive integer, got 'big'"),
        ({"size": {"shortest_edge": 25.0}}, "size.shortest_edge must be a positive integer, got 25.0"),
        ({"size": 0}, "size must be a positive integer, got 0"),
        ({"crop_size": {"shortest_edge": 9}}, "crop_size must have height and width"),
        ({"resample": None}, "resample must be the number of a Pillow filter"),
        ({"resample": "bilinear"}, "resample must be"),
        ({"resample": 9}, "resample must be"),
        ({"rescale_factor": None}, "rescale_factor must be a finite number, got None"),
        ({"rescale_factor": "1/255"}, "rescale_factor must be a finite number"),
        ({"image_mean": [0.5, 0.5]}, "image_mean must be one number or three"),
        ({"do_rescale": False}, "set do_rescale to true or offset to false"),
    ],
    ids=str,
)
@pytest.mark.field_case("smollm 65")
def test_refuses_what_transformers_cannot_run(tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    write(tmp_path, "preprocessor_config.json", fields)
    with pytest.raises(CheckpointError, match=sentence):
        read_preprocess(tmp_path, default_crop=(24, 20))
    with pytest.raises(Exception):  # noqa: B017, PT011 - any failure of theirs will do
        VivitImageProcessor.from_pretrained(tmp_path)(list(FRAMES), return_tensors="np")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"rescale_factor": NaN}', "finite"),
        ('{"rescale_factor": 1e999}', "finite"),
        ('{"rescale_factor": 1' + "0" * 400 + "}", "finite"),
        ('{"crop_size": [20.5, 20]}', "crop_size must be 2 positive integers"),
        ('{"do_resize": "false"}', "do_resize must be true or false, got 'false'"),
        ('{"image_std": [0.5, 0, 0.5]}', "contains a zero"),
        ('{"image_processor_type": "CLIPImageProcessor"}', "is for CLIPImageProcessor, whose arithmetic"),
        ('{"feature_extractor_type": "ViTFeatureExtractor"}', "is for ViTFeatureExtractor"),
        ("[]", "must hold a JSON object, got list"),
        ("{", "cannot be read as JSON"),
    ],
)
@pytest.mark.field_case("transformers 41950")
def test_refuses_other_json(tmp_path: Path, text: str, sentence: str) -> None:
    write(tmp_path, "preprocessor_config.json", text)
    with pytest.raises(InputError, match=sentence):
        read_preprocess(tmp_path, default_crop=(24, 20))


@pytest.mark.field_case("Qwen-VL-Series-Finetune 34")
def test_a_missing_json_is_an_error_that_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json") as e:
        read_preprocess(tmp_path, default_crop=(24, 20))
    assert ".save_pretrained(folder)" in str(e.value)
    assert '{"height": 24, "width": 20}' in str(e.value)
    write(tmp_path, "processor_config.json", {"processor_class": "X"})  # not nested: says nothing about pixels
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        read_preprocess(tmp_path, default_crop=(24, 20))
    with pytest.raises(CheckpointError, match="is not a folder"):
        read_preprocess(tmp_path / "nowhere", default_crop=(24, 20))


def test_a_checkpoint_of_a_trainer_without_a_processor_names_the_one_above(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-500"
    folder.mkdir()
    write(tmp_path, "preprocessor_config.json", CROP)
    with pytest.raises(CheckpointError) as e:
        read_preprocess(folder, default_crop=(24, 20))
    assert str(e.value).endswith(f"was trained with into the folder, for example the one in {tmp_path}")


@pytest.mark.field_case("transformers 38846")
def test_sources_are_tried_in_transformers_order(tmp_path: Path) -> None:
    def crop() -> int:
        return read_preprocess(tmp_path, default_crop=(1, 1)).crop_size[0]

    write(tmp_path, "video_preprocessor_config.json", {"crop_size": 10})
    assert crop() == 10
    write(tmp_path, "processor_config.json", {"video_processor": {"crop_size": 20}})
    assert crop() == 20
    write(tmp_path, "preprocessor_config.json", {"crop_size": 30})
    assert crop() == 30
    write(tmp_path, "processor_config.json", {"video_processor": {"crop_size": 20}, "image_processor": CROP})
    assert crop() == 24 == VivitImageProcessor.from_pretrained(tmp_path).crop_size["height"]
    write(tmp_path, "processor_config.json", {"image_processor": 3})
    with pytest.raises(CheckpointError, match="image_processor must be a JSON object"):
        crop()


@pytest.mark.field_case("transformers 46256")
def test_video_processor_json_gives_its_fields(tmp_path: Path) -> None:
    """Null means the default there, unknown fields are skipped, and offset follows do_rescale."""
    saved = {
        "video_processor_type": "VivitVideoProcessor",
        "crop_size": {"height": 24, "width": 20},
        "do_resize": None,
        "do_sample_frames": False,
        "image_mean": [0.1, 0.2, 0.3],
        "size": {"shortest_edge": 31},
    }
    write(tmp_path, "video_preprocessor_config.json", saved)
    p = read_preprocess(tmp_path, default_crop=(24, 20))
    assert (p.processor, p.do_resize, p.shortest_edge) == ("VivitVideoProcessor", True, 31)
    assert (p.offset, p.rescale_factor, p.mean) == (True, 1 / 127.5, (0.1, 0.2, 0.3))
    write(tmp_path, "video_preprocessor_config.json", {**saved, "do_rescale": False})
    assert read_preprocess(tmp_path, default_crop=(24, 20)).offset is False


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"rescale_factor": 1 / 255},
            "rescale_factor 0.00392157 and offset true give pixel values from -3 to -1, as in",
        ),
        ({"rescale_factor": 1 / 255, "do_normalize": False}, "from -1 to 0"),
        ({"rescale_factor": 1 / 255, "image_std": [0.229, 0.224, 0.225]}, "from -6.7 to -2.18"),
        ({"rescale_factor": 1 / 255, "offset": False}, None),
        ({"rescale_factor": 1 / 255, "offset": False, "do_normalize": False}, None),
        ({"do_rescale": False, "offset": False}, None),
        ({"do_normalize": False}, None),
        ({}, None),
    ],
)
def test_pixel_values_that_no_network_was_trained_on_are_told(
    tmp_path: Path, fields: dict[str, Any], said: str | None
) -> None:
    """The range is that of transformers' own processor, on black and white."""
    write(tmp_path, "preprocessor_config.json", {**CROP, **fields})
    doubt = doubt_about(read_preprocess(tmp_path, default_crop=(24, 20)))
    assert (doubt is None) == (said is None)
    if said is None or doubt is None:
        return
    assert said in doubt
    frames = [np.full((24, 20, 3), level, np.uint8) for level in (0, 255)]
    pixels = VivitImageProcessor.from_pretrained(tmp_path)(frames, return_tensors="np")["pixel_values"]
    assert f"from {pixels.min():.3g} to {pixels.max():.3g}" in doubt


@pytest.mark.parametrize("sizes", [{}, {"image_size": 32}, {"image_size": [32, 48], "tubelet_size": [4, 8, 16]}])
def test_geometry_is_the_networks(tmp_path: Path, sizes: dict[str, Any]) -> None:
    """(height, width) and (t, h, w), proven on the shapes of the real embedding."""
    config = VivitConfig(**sizes, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    config.save_pretrained(tmp_path)
    clip = read_clip_geometry(tmp_path)
    assert clip == read_clip_geometry(tmp_path / "config.json")
    network = VivitForVideoClassification(config)
    shape = (1, clip.num_frames, 3, clip.height, clip.width)
    assert network.vivit.embeddings(torch.zeros(shape)).shape[1] == clip.num_tubelets + 1
    assert network.vivit.embeddings.patch_embeddings.projection.kernel_size == clip.tubelet_size


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"image_size": "224"}, "image_size must be 2 positive integers"),
        ({"image_size": [224]}, "image_size must be 2 positive integers"),
        ({"num_frames": 32.0}, "num_frames must be a positive integer, got 32.0"),
        ({"tubelet_size": 2}, "tubelet_size must be 3 positive integers"),
        ({"model_type": "bert"}, "config.json is a bert checkpoint; vivit-export takes model_type vivit"),
        ({"num_channels": 1}, r"only RGB \(3\)"),
        ({"image_size": 225}, "not a positive multiple"),
        ("nonsense", "cannot be read as JSON"),
        (None, "does not exist; give a checkpoint folder"),
    ],
    ids=str,
)
def test_refuses_other_configs(tmp_path: Path, config: Any, sentence: str) -> None:
    if config is not None:
        write(tmp_path, "config.json", config)
    with pytest.raises(InputError, match=sentence):
        read_clip_geometry(tmp_path)

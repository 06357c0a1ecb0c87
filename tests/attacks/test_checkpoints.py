"""Hostile checkpoints and lists of labels, as far as they are read without torch: one sentence, at once."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from attacked import within_limits

from vivit_export.contract import Clip
from vivit_export.errors import CheckpointError, InputError
from vivit_export.export.checkpoint.config import read_config
from vivit_export.export.checkpoint.files import weight_files
from vivit_export.families import find_family
from vivit_export.runtime.clips.pixels.processor_config import read_clip_geometry, read_preprocess
from vivit_export.runtime.labels import read_labels

DEEP = "[" * 100_000 + "]" * 100_000
CONFIG: dict[str, Any] = {"model_type": "vivit", "id2label": {"0": "a", "1": "b"}}

CONFIGS: dict[str, str] = {
    "no JSON": "{",
    "a list": "[]",
    "100,000 levels": '{"a":' + DEEP + "}",
    "half a pair": '{"model_type": "vivit", "id2label": {"0": "\\ud800"}}',
    **{
        name: json.dumps(CONFIG | {key: value})
        for name, key, value in (
            ("10^9 wide", "hidden_size", 10**9),
            ("10^9 layers", "num_hidden_layers", 10**9),
            ("heads that are text", "num_attention_heads", "12"),
            ("a label of 5,000 digits", "id2label", {"1" * 5000: "a"}),
            ("70,000 labels", "id2label", {str(i): "a" for i in range(70_000)}),
            ("labels that are a number", "id2label", 7),
            ("architectures that are a number", "architectures", 7),
            ("a task that is a list", "problem_type", []),
            ("another model", "model_type", ["vivit"]),
            ("channels that are a list", "num_channels", []),
        )
    },
}


def _asks_for_head(folder: Path) -> bool:
    config = read_config(folder)
    return find_family(config["model_type"], "config.json").has_head(config)


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_a_hostile_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with within_limits(seconds=4), pytest.raises(CheckpointError) as refused:
        _asks_for_head(tmp_path)
    assert len(str(refused.value)) < 1000


GEOMETRIES = {
    "10^8 frames": {"num_frames": 10**8},
    "10^6 pixels": {"image_size": 10**6},
    "a tubelet of 0": {"tubelet_size": [0, 16, 16]},
    "NaN": {"num_frames": float("nan")},
    "a list of 10^5": {"image_size": [224] * 10**5},
}


@pytest.mark.parametrize("fields", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_hostile_geometry_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | fields), encoding="utf-8")
    with within_limits(), pytest.raises(InputError) as refused:
        read_clip_geometry(tmp_path)
    assert len(str(refused.value)) < 1000


PROCESSORS: dict[str, str] = {
    "no JSON": "{",
    "100,000 levels": '{"size":' + DEEP + "}",
    "half a pair": '{"image_processor_type": "\\udfff"}',
    **{
        name: json.dumps({key: value})
        for name, key, value in (
            ("a crop of 32768", "crop_size", 32768),
            ("a resize to 10^6", "size", {"shortest_edge": 10**6}),
            ("a negative size", "size", {"height": -1, "width": 5}),
            ("a deviation close to zero", "image_std", [0.5, 1e-300, 0.5]),
            ("a mean of 1e300", "image_mean", 1e300),
            ("NaN", "rescale_factor", float("nan")),
            ("a filter of 99", "resample", 99),
            ("code to load", "image_processor_type", "evil.Processor"),
            ("a class that is a list", "image_processor_type", [["x"]]),
            ("a flag that is text", "do_resize", "yes"),
        )
    },
}


@pytest.mark.parametrize("text", PROCESSORS.values(), ids=PROCESSORS)
def test_a_hostile_processor_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text, encoding="utf-8")
    with within_limits(), pytest.raises(InputError) as refused:
        read_preprocess(tmp_path, (224, 224))
    assert len(str(refused.value)) < 1000


def test_a_crop_may_be_as_large_as_the_clip(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"crop_size": 448}), encoding="utf-8")
    assert read_preprocess(tmp_path, (448, 448)).crop_size == (448, 448)
    assert Clip(32, 448, 448, (2, 16, 16)).num_tubelets == 12544


INDEXES: dict[str, str] = {
    "no JSON": "{",
    "100,000 levels": '{"weight_map":' + DEEP + "}",
    "a list": "[]",
    "a map that is text": '{"weight_map": "x"}',
    "no shard": '{"weight_map": {}}',
    "a shard that is a number": '{"weight_map": {"a": 1}}',
    "a shard that is a list": '{"weight_map": {"a": []}}',
    "a shard above": '{"weight_map": {"a": "../secret.safetensors"}}',
    "a shard in /etc": '{"weight_map": {"a": "/etc/passwd"}}',
    "a shard in a folder": '{"weight_map": {"a": "b/c.safetensors"}}',
    "a pickle as a shard": '{"weight_map": {"a": "pytorch_model.bin"}}',
    "a shard that is missing": '{"weight_map": {"a": "no.safetensors"}}',
}


@pytest.mark.parametrize("text", INDEXES.values(), ids=INDEXES)
def test_a_hostile_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path.parent / "secret.safetensors").write_bytes(b"")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (tmp_path / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    with within_limits(), pytest.raises(CheckpointError):
        weight_files(tmp_path, allow_pickle=False)


def test_a_pickle_is_not_read_unless_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(print))
    with pytest.raises(CheckpointError, match=r"as a pickle .*, which can carry code"):
        weight_files(tmp_path, allow_pickle=False)


LABELS: dict[str, bytes] = {
    "100,000 levels": DEEP.encode(),
    "no text": b"\xff\xfe\xfd",
    "half a pair": b'["\\ud800", "b"]',
    "too many": json.dumps(["x"] * 100_000).encode(),
    "an index of 10^400": json.dumps({"1" + "0" * 5000: "a", "1": "b"}).encode(),
    "an index that is none": b'{"a": "b", "c": "d"}',
    "labels that are lists": b"[[], []]",
    "an id2label that is text": b'{"id2label": "id2label"}',
    "an id2label that is a list": b'{"id2label": ["a", "b"]}',
}


@pytest.mark.parametrize("data", LABELS.values(), ids=LABELS)
def test_hostile_labels_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "labels.json").write_bytes(data)
    with within_limits(), pytest.raises(InputError):
        read_labels(tmp_path / "labels.json", 2)

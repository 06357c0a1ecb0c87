"""VideoMAE's old weights, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import edit_config, normal_pixels, refusal
from family_checkpoints import folder, loaded
from safetensors.numpy import load_file, save_file

from vivit_export.export.checkpoint.load import load_checkpoint


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder("videomae"), tmp_path / "copy"))


@pytest.mark.parametrize(("query", "value"), [("q_bias", "v_bias"), ("query.bias", "value.bias")])
def test_biases_are_loaded_under_either_name(copy: Path, query: str, value: str) -> None:
    """Published checkpoints have ``q_bias`` and ``v_bias``; a transformers that leaves them random must not matter."""
    weights = {
        re.sub(r"v_bias$|value\.bias$", value, re.sub(r"q_bias$|query\.bias$", query, name)): array
        for name, array in load_file(copy / "model.safetensors").items()
    }
    assert sum(name.endswith((query, value)) for name in weights) == 4
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    pixels = normal_pixels(loaded("videomae"), 1)
    found = load_checkpoint(str(copy)).run_eager(pixels)
    for name, array in loaded("videomae").run_eager(pixels).items():
        assert np.array_equal(found[name], array)


def test_a_bias_that_is_missing_is_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights[next(name for name in weights if re.search(r"layer\.1\..*(q_bias|query\.bias)$", name))]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert "lacks 1 of the model's weights, the first is videomae.encoder.layer.1.attention" in refusal(copy)


def test_a_network_that_makes_pixels_is_refused(copy: Path) -> None:
    edit_config(copy, architectures=["VideoMAEForPreTraining"])
    said = refusal(copy)
    assert "'VideoMAEForPreTraining', which makes pixels, not labels" in said
    assert '["VideoMAEModel"]' in said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"use_mean_pooling": 1}, "use_mean_pooling must be true or false, got 1"),
        ({"qv_bias": "yes"}, "qv_bias must be true or false, got 'yes'"),
        ({"tubelet_size": [2, 8, 8]}, "tubelet_size must be a positive integer"),
        ({"patch_size": 7}, "is not a positive multiple of the tubelet's 7"),
        ({"patch_size": [8]}, "patch_size must be 2 positive integers"),
    ],
    ids=str,
)
def test_a_field_of_another_form_is_refused(copy: Path, fields: dict[str, object], said: str) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(Exception, match=said):
        load_checkpoint(str(copy))

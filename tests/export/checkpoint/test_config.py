"""What ``config.json`` may say, and what is done about fields that change the form of outputs or the weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Checkpoints, assert_as_hugging_face, edit_config, normal_pixels, refusal

from vivit_export.export.checkpoint.load import load_checkpoint

NAMES = ["a", "b", "c", "d", "é"]


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_float32_weights_stay_float32_whatever_the_config_says(
    checkpoints: Checkpoints, tmp_path: Path, field: str, dtype: str
) -> None:
    """The reference is the network in float64: rounded weights would be off by a thousand times what is allowed."""
    folder = checkpoints.copy(tmp_path / "low")
    edit_config(folder, **{"dtype": None, field: dtype})
    loaded = load_checkpoint(str(folder))
    assert loaded.notes == (f"not as config.json says: {field}={dtype!r}; weights are float32 and outputs plain",)
    pixels = normal_pixels(loaded, 2)
    assert_as_hugging_face(loaded.run_eager(pixels), folder, pixels)


@pytest.mark.parametrize(
    "fields",
    [
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"return_dict": False},
        {"torchscript": True},
        {"output_attentions": True, "return_dict": False, "attn_implementation": "eager"},
        {"_attn_implementation": "flash_attention_2"},
        {"gradient_checkpointing": True, "hidden_dropout_prob": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("headless", [False, True])
def test_fields_about_the_form_of_outputs_change_nothing(
    checkpoints: Checkpoints, tmp_path: Path, fields: dict[str, Any], headless: bool
) -> None:
    folder = checkpoints.copy(tmp_path / "odd", headless=headless)
    edit_config(folder, **fields)
    loaded, plain = load_checkpoint(str(folder)), checkpoints.load(headless=headless)
    pixels = normal_pixels(plain, 1)
    ours, expected = loaded.run_eager(pixels), plain.run_eager(pixels)
    assert ours.keys() == expected.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (NAMES, NAMES),
        ({str(i): name for i, name in enumerate(NAMES)}, NAMES),
        ({str(i): NAMES[i] for i in (3, 1, 0, 4, 2)}, NAMES),
        ({"0": "a", "1": "b", "2": None, "3": 7, "4": ""}, ["a", "b", "None", "7", ""]),
    ],
    ids=["list", "numbers", "out of order", "other types"],
)
def test_labels_are_numbered_as_the_logits_are(
    checkpoints: Checkpoints, tmp_path: Path, found: object, expected: list[str]
) -> None:
    folder = checkpoints.copy(tmp_path / "named")
    edit_config(folder, id2label=found)
    loaded = load_checkpoint(str(folder))
    assert loaded.labels == tuple(expected)
    assert loaded.config["id2label"] == {str(i): name for i, name in enumerate(expected)}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({str(i + 1): name for i, name in enumerate(NAMES)}, "5 labels, .* 0 to 4, but it has number 5; number the"),
        ({"0": "a", "1": "b", "2": "c", "3": "d", "7": "e"}, "0 to 4, but it has number 7"),
        ({"-1": "z", "0": "a", "1": "b", "2": "c", "3": "d"}, "0 to 4, but it has number -1"),
        ({"0": "a", "00": "b", "1": "c", "2": "d", "3": "e"}, "0 to 4, but it has a number twice"),
        ({name: i for i, name in enumerate(NAMES)}, "has the key 'a'; is it label2id"),
        ({"²": "a"}, "has the key '²'"),
        ("labels.txt", "must map the number of each logit to its name, got 'labels.txt'"),
        (NAMES[:4], r"classifier\.\w+ has shape .*5.* but config.json implies .*4"),
    ],
    ids=["from one", "a gap", "negative", "twice", "label2id", "superscript", "text", "too few"],
)
def test_labels_that_would_be_lost_are_refused(
    checkpoints: Checkpoints, tmp_path: Path, found: object, sentence: str
) -> None:
    folder = checkpoints.copy(tmp_path / "named")
    edit_config(folder, id2label=found)
    assert re.search(sentence, refusal(folder))


@pytest.mark.parametrize("fields", [{"num_labels": 0, "id2label": None}, {"id2label": {}}, {"id2label": []}], ids=str)
def test_no_labels_are_an_encoder_alone(checkpoints: Checkpoints, tmp_path: Path, fields: dict[str, Any]) -> None:
    """As transformers has it: `num_labels=0` makes the classifier an Identity."""
    folder = checkpoints.copy(tmp_path / "none", headless=True)
    edit_config(folder, architectures=["VivitForVideoClassification"], **fields)
    loaded = load_checkpoint(str(folder))
    pixels = normal_pixels(loaded, 1)
    expected = checkpoints.load(headless=True).run_eager(pixels)
    np.testing.assert_array_equal(loaded.run_eager(pixels)["embedding"], expected["embedding"])
    assert (loaded.has_head, loaded.labels) == (False, ())


def test_a_classifier_beside_no_labels_is_not_left_out_in_silence(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "none")
    edit_config(folder, num_labels=0, id2label=None)
    assert re.search(r"there is a classifier \(classifier\.bias\); set architectures to", refusal(folder))


@pytest.mark.parametrize(
    ("found", "method"),
    [({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"), ({"bits": 8}, "of no method")],
)
def test_quantized_weights_are_named(checkpoints: Checkpoints, tmp_path: Path, found: object, method: str) -> None:
    folder = checkpoints.copy(tmp_path / "codes")
    edit_config(folder, quantization_config=found)
    assert re.search(rf"has a quantization_config \({method}\), so the weights are codes", refusal(folder))


def test_a_byte_order_mark_is_no_obstacle(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "marked")
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text((folder / name).read_text(), encoding="utf-8-sig")
    assert load_checkpoint(str(folder)).labels == checkpoints.load().labels


def test_another_librarys_sentence_is_not_cut(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "wrong")
    edit_config(folder, initializer_range="tiny")
    said = refusal(folder)
    assert re.search(r"cannot be loaded as a ViViT: .*initializer_range.*tiny", said), said
    assert json.loads((folder / "config.json").read_text())["initializer_range"] == "tiny"

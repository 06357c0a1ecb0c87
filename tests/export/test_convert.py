"""A converted checkpoint: its files, what is taken from scenic's configurations, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenic_trees
from safetensors import safe_open
from safetensors.numpy import load_file

from vivit_export.errors import CheckpointError, InputError, OutputError, UsageError
from vivit_export.export import convert
from vivit_export.export.checkpoint.config import read_config
from vivit_export.export.convert import convert_scenic
from vivit_export.runtime.clips.pixels.processor_config import doubt_about, read_preprocess

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def checkpoint(kind: str = "joint", **changes: Any) -> Path:
        tree = scenic_trees.tree_of({**scenic_trees.flat_parameters(kind), **changes})
        (tmp_path / "checkpoint").write_bytes(scenic_trees.flax_bytes({"params": tree}))
        return tmp_path / "checkpoint"

    return checkpoint


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def test_a_joint_network_becomes_one_of_transformers(write: Write, tmp_path: Path) -> None:
    made = convert_scenic(write(), tmp_path / "out", num_frames=8)
    assert sorted(p.name for p in made.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    config = read_config(made.path)
    assert config["model_type"] == "vivit" and config["hidden_act"] == "gelu_fast" and config["layer_norm_eps"] == 1e-6
    assert (config["num_frames"], config["image_size"], config["tubelet_size"]) == (8, 32, [2, 8, 8])
    assert made.labels == tuple(config["id2label"].values()) == tuple(f"LABEL_{i}" for i in range(7))
    assert made.to_json()["parameters"] == sum(a.size for a in scenic_trees.flat_parameters("joint").values())
    with safe_open(made.path / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_factorised_encoder_says_what_its_second_stack_is(write: Write, tmp_path: Path) -> None:
    made = convert_scenic(write("encoder"), tmp_path / "out")
    config = config_of(made.path)
    assert made.clip == (8, 32, 32) and made.title == "ViViT with a factorised encoder"
    assert config["model_type"] == "vivit_factorised" and config["factorisation"] == "encoder"
    assert [config[f"temporal_{n}"] for n in ("num_hidden_layers", "num_attention_heads", "intermediate_size")] == [
        2,
        4,
        128,
    ]
    assert config["num_hidden_layers"] == 3
    assert config["architectures"] == ["VivitFactorisedForVideoClassification"]


def test_frames_are_preprocessed_as_scenic_does(write: Write, tmp_path: Path) -> None:
    """Values from -1 to 1, and no normalization after that: dmvr's mean is 0 and its deviation 1."""
    made = convert_scenic(write("encoder"), tmp_path / "out")
    preprocess = read_preprocess(made.path, (0, 0))
    assert (preprocess.shortest_edge, preprocess.crop_size, preprocess.resample) == (37, (32, 32), 2)
    assert preprocess.rescale_factor == 1 / 127.5 and preprocess.offset and not preprocess.do_normalize
    assert doubt_about(preprocess) is None


@pytest.mark.parametrize(("side", "resized"), [(224, 256), (256, 288), (320, 366)])
def test_frames_are_resized_as_in_scenics_configurations(write: Write, tmp_path: Path, side: int, resized: int) -> None:
    table = np.zeros((1, (side // 8) ** 2 + 1, 64))
    made = convert_scenic(
        write("encoder", **{"SpatialTransformer/posembed_input/pos_embedding": table}), tmp_path / "out"
    )
    assert made.clip == (8, side, side)
    assert read_preprocess(made.path, (0, 0)).shortest_edge == resized
    assert any("resized" in note for note in made.notes) == (side == 320)


def test_the_types_of_the_weights_stay(write: Write, tmp_path: Path) -> None:
    import ml_dtypes

    flat = scenic_trees.flat_parameters("joint")
    head, bias = "output_projection/kernel", "output_projection/bias"
    changes = {n: a.astype(np.float32) for n, a in flat.items()}
    changes |= {head: flat[head].astype(ml_dtypes.bfloat16), bias: flat[bias].astype(np.float16)}
    made = convert_scenic(write(**changes), tmp_path / "out", num_frames=8)
    weights = load_file(made.path / "model.safetensors")
    assert weights["classifier.weight"].dtype == np.float32 and weights["classifier.bias"].dtype == np.float16
    np.testing.assert_array_equal(weights["classifier.weight"], changes[head].astype(np.float32).T)
    assert weights["vivit.layernorm.weight"].dtype == np.float32
    assert config_of(made.path)["dtype"] == "float32"


def test_what_the_checkpoint_does_not_say_is_said(write: Write, tmp_path: Path) -> None:
    def notes(kind: str, **options: Any) -> str:
        return " ".join(convert_scenic(write(kind), tmp_path / "out", force=True, **options).notes)

    assert "resized to 37 pixels before the crop" in notes("encoder")
    assert "attend over time first, scenic's default" in notes("self_attention", num_frames=8)
    assert "joint attention without a class token looks the same" in notes("dot_product", num_frames=8)
    table = np.zeros((1, 785, 64))
    said = convert_scenic(write(**{"Transformer/posembed_input/pos_embedding": table}), tmp_path / "out", force=True)
    assert said.clip == (2, 224, 224) and len(said.notes) == 2
    assert "taken for clips of 2 frames of 224 x 224 pixels, which scenic's configurations crop" in said.notes[0]


def test_labels_come_from_a_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\nf\ng\n")
    made = convert_scenic(write("encoder"), tmp_path / "out", labels=tmp_path / "labels.txt")
    assert made.labels == tuple("abcdefg") and config_of(made.path)["label2id"]["g"] == 6
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="names 2 labels, but the model has 7"):
        convert_scenic(write("encoder"), tmp_path / "other", labels=tmp_path / "labels.txt")
    assert not (tmp_path / "other").exists()


def epic() -> dict[str, Any]:
    return {
        "output_projection/kernel": np.arange(64 * 397.0).reshape(64, 397),
        "output_projection/bias": np.arange(397.0),
    }


def test_two_heads_are_refused_and_one_of_them_converted(write: Write, tmp_path: Path) -> None:
    checkpoint = write("encoder", **epic())
    with pytest.raises(
        CheckpointError, match=r"two heads: 300 nouns and 97 verbs.* convert one of them: classes=0-299"
    ):
        convert_scenic(checkpoint, tmp_path / "out")
    made = convert_scenic(checkpoint, tmp_path / "out", classes=(300, 396))
    weights = load_file(made.path / "model.safetensors")
    np.testing.assert_array_equal(weights["classifier.bias"], np.arange(300.0, 397))
    np.testing.assert_array_equal(weights["classifier.weight"], epic()["output_projection/kernel"].T[300:])
    assert len(made.labels) == 97
    with pytest.raises(UsageError, match="classes=300-397 is not part of the logits, which are 0-396"):
        convert_scenic(checkpoint, tmp_path / "out", force=True, classes=(300, 397))


def test_only_a_converted_checkpoint_is_replaced(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_scenic(write("encoder"), out)
    with pytest.raises(OutputError, match="exists; pass force to replace that converted checkpoint"):
        convert_scenic(write(), out, num_frames=8)
    convert_scenic(write(), out, num_frames=8, force=True)
    config = config_of(out)
    assert config["model_type"] == "vivit" and config["converted_from"]["format"] == "scenic"
    (out / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match=r"holds mine\.txt, which is not part of the converted checkpoint"):
        convert_scenic(write(), out, num_frames=8, force=True)
    (out / "mine.txt").unlink()
    del config["converted_from"]
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(OutputError, match="is not a converted checkpoint, so it is left alone"):
        convert_scenic(write(), out, num_frames=8, force=True)


def test_the_container_does_not_matter(write: Write, tmp_path: Path) -> None:
    expected = (convert_scenic(write("encoder"), tmp_path / "out").path / "model.safetensors").read_bytes()
    tree = scenic_trees.tree_of(scenic_trees.flat_parameters("encoder"))
    momentum = {"optimizer": {"target": {"params": tree}, "state": {"step": 3, "param_states": tree}}, "rng": None}
    for i, (state, chunk) in enumerate([(momentum, 1 << 30), (momentum, 9000), ({"params": {"params": tree}}, 5000)]):
        path = tmp_path / f"checkpoint-{i}"
        path.write_bytes(scenic_trees.flax_bytes(state, chunk))
        made = convert_scenic(path, tmp_path / f"out-{i}").path
        assert (made / "model.safetensors").read_bytes() == expected


def test_a_weight_that_is_not_finite_leaves_nothing_behind(write: Write, tmp_path: Path) -> None:
    broken = scenic_trees.flat_parameters("encoder")["cls_TemporalTransformer"].copy()
    broken[0, 0, 3] = np.nan
    checkpoint = write("encoder", cls_TemporalTransformer=broken)
    with pytest.raises(CheckpointError, match="checkpoint: cls_TemporalTransformer has 1 NaN or infinite value;"):
        convert_scenic(checkpoint, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_the_same_checkpoint_gives_the_same_bytes(write: Write, tmp_path: Path) -> None:
    one, other = (convert_scenic(write("encoder"), tmp_path / name).path for name in ("a", "b"))
    for name in convert._FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes()

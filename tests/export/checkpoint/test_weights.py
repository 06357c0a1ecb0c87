"""Weights as people save them: each is the network that was saved, or one sentence that leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import Checkpoints, assert_as_hugging_face, edit_config, normal_pixels, refusal
from safetensors.torch import load_file, save_file, save_model

from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.checkpoint.weights import unwrapped
from vivit_export.families import find_family

WEIGHTS = "model.safetensors"
State = dict[str, torch.Tensor]


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def assert_same(loaded: Checkpoint, expected: Checkpoint) -> None:
    ours, theirs = loaded.network.state_dict(), expected.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "base_model.model.", "model.", "my_vivit."],
)
@pytest.mark.parametrize("headless", [False, True])
def test_a_prefix_of_all_names_is_left_out_and_told(
    checkpoints: Checkpoints, tmp_path: Path, prefix: str, headless: bool
) -> None:
    folder = checkpoints.copy(tmp_path / "wrapped", headless=headless)
    rewrite(folder, lambda state: {f"{prefix}{name}": value for name, value in state.items()})
    loaded = load_checkpoint(str(folder))
    assert_same(loaded, checkpoints.load(headless=headless))
    assert loaded.notes == (f"the names of the weights begin with {prefix!r}, which was left out",)


def test_a_head_outside_of_the_wrapped_encoder_is_found(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "wrapped")
    rewrite(folder, lambda state: {name.replace("vivit.", "backbone."): value for name, value in state.items()})
    assert_same(load_checkpoint(str(folder)), checkpoints.load())


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_an_encoder_beside_its_classifier_gets_its_name_back(prefix: str) -> None:
    """Without it, transformers 5.9.0 finds no place for the weights that it names otherwise than those before it."""
    inside = ("embeddings.cls_token", "encoder.layer.0.attention.attention.key.bias", "layernorm.bias")
    state = {name: torch.zeros(1) for name in ("classifier.bias", *(f"{prefix}{name}" for name in inside))}
    named, removed = unwrapped(state, Path("folder"), find_family("vivit", "config.json"))
    assert (list(named), removed) == (["classifier.bias", *(f"vivit.{name}" for name in inside)], prefix)


def test_a_pickle_of_a_wrapped_network(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "wrapped")
    state = {f"module.{name}": value for name, value in load_file(folder / WEIGHTS).items()}
    (folder / WEIGHTS).unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert_same(load_checkpoint(str(folder), allow_pickle=True), checkpoints.load())
    torch.save({"state_dict": state, "epoch": 3}, folder / "pytorch_model.bin")
    said = refusal(folder, allow_pickle=True)
    assert said.endswith("holds an entry 'state_dict' where tensors by name are needed, as model.state_dict() gives "
                         "them; save those alone")  # fmt: skip
    torch.save([1], folder / "pytorch_model.bin")
    assert "holds a list where tensors by name are needed" in refusal(folder, allow_pickle=True)


def test_two_networks_in_one_file(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "two")
    rewrite(folder, lambda s: {f"{p}.{name}": v.clone() for p in ("teacher", "student") for name, v in s.items()})
    assert "holds several networks, whose weights begin with 'student.' and 'teacher.'; save the one" in refusal(folder)


def test_a_tensor_that_two_names_share_is_both(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "tied", num_hidden_layers=2)
    network = load_checkpoint(str(folder)).network
    network.vivit.layers[1].mlp.fc1.weight = network.vivit.layers[0].mlp.fc1.weight
    save_model(network, str(folder / WEIGHTS))
    assert len(load_file(folder / WEIGHTS)) == len(network.state_dict()) - 1
    loaded = load_checkpoint(str(folder))
    assert torch.equal(loaded.network.vivit.layers[1].mlp.fc1.weight, network.vivit.layers[0].mlp.fc1.weight)


# --- what is left over -------------------------------------------------------------------------


def more(**shapes: tuple[int, ...]) -> Callable[[State], State]:
    return lambda state: {**state, **{n.replace("__", "."): torch.zeros(s) for n, s in shapes.items()}}


def test_weights_beside_the_network_are_named(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A loss keeps its class weights, a trainer its step: the network is whole without them."""
    folder = checkpoints.copy(tmp_path / "more")
    rewrite(folder, more(loss__weight=(5,)))
    loaded = load_checkpoint(str(folder))
    assert_same(loaded, checkpoints.load())
    (note,) = loaded.notes
    assert note.startswith("not exported: the weight loss.weight, for which config.json has no place")
    rewrite(folder, more(head__0__weight=(7, 32), head__0__bias=(7,)))
    (note,) = load_checkpoint(str(folder)).notes
    assert "3 weights (head.0.bias and others)" in note


def test_a_head_of_ones_own_on_an_encoder_is_named(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "head", headless=True)
    assert load_checkpoint(str(folder)).notes == ()  # a pooler is not a surprise
    rewrite(folder, more(head__weight=(7, 32)))
    (note,) = load_checkpoint(str(folder)).notes
    assert note.startswith("not exported: the weight head.weight")
    assert note.endswith("the output is that of the encoder alone")


def test_a_head_of_another_name_is_named_where_the_classifier_is_missing(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints.copy(tmp_path / "head")
    rewrite(folder, lambda state: {name.replace("classifier.", "fc."): value for name, value in state.items()})
    said = refusal(folder)
    assert re.search(r"lacks 2 .* first is classifier\.bias; for 2 weights \(fc\.bias and others\) the model", said)


def test_an_encoder_whose_config_asks_for_a_classifier(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "encoder")
    rewrite(folder, lambda state: {name: value for name, value in state.items() if "classifier" not in name})
    assert refusal(folder).endswith('is it an encoder alone? Then set architectures to ["VivitModel"] in config.json')
    edit_config(folder, architectures=["VivitModel"])
    assert not load_checkpoint(str(folder)).has_head


def test_a_classifier_that_the_config_does_not_ask_for(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "headed")
    edit_config(folder, architectures=["VivitModel"])
    assert re.search(r'there is a classifier .*\["VivitForVideoClassification"\].*outputs=embedding', refusal(folder))


def test_more_in_the_encoder_is_another_network(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "scaled")
    rewrite(folder, more(vivit__encoder__layer__0__layer_scale__weight=(32,), vivit__embeddings__extra=(1,)))
    assert re.search(r"no place for 2 of the encoder's weights, .*without them it is another network", refusal(folder))


# --- types -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_floats_of_any_width(checkpoints: Checkpoints, tmp_path: Path, dtype: torch.dtype) -> None:
    folder = checkpoints.copy(tmp_path / "floats")
    rewrite(folder, lambda state: {name: value.to(dtype) for name, value in state.items()})
    loaded = load_checkpoint(str(folder))
    pixels = normal_pixels(loaded, 2)
    expected = {name: value.float() for name, value in load_file(folder / WEIGHTS).items()}
    assert torch.equal(loaded.network.classifier.weight, expected["classifier.weight"])
    save_file(expected, folder / WEIGHTS, metadata={"format": "pt"})  # transformers cannot load them as float64
    assert_as_hugging_face(loaded.run_eager(pixels), folder, pixels)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.int8, None), (torch.uint8, None), (torch.float8_e4m3fn, "weight_scale_inv")], ids=str
)
def test_codes_are_not_taken_for_floats(
    checkpoints: Checkpoints, tmp_path: Path, dtype: torch.dtype, scale: str | None
) -> None:
    folder = checkpoints.copy(tmp_path / "codes")
    name = "vivit.encoder.layer.0.output.dense"
    extra = {f"{name}.{scale}": torch.ones(1)} if scale else {}
    rewrite(folder, lambda state: {**state, f"{name}.weight": state[f"{name}.weight"].to(dtype), **extra})
    assert f"weight {name}.weight is stored as codes of quantization, not as floats; export the" in refusal(folder)


def test_whole_numbers_that_are_no_weights_are_no_codes(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "counted")
    rewrite(folder, lambda state: {**state, "num_batches_tracked": torch.tensor(7)})
    assert_same(load_checkpoint(str(folder)), checkpoints.load())


# --- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"image_size": 32}, {"num_frames": 8}, {"tubelet_size": [2, 8, 4]}], ids=str)
def test_a_position_table_of_another_size(checkpoints: Checkpoints, tmp_path: Path, fields: dict[str, object]) -> None:
    folder = checkpoints.copy(tmp_path / "larger")
    edit_config(folder, **fields)
    if "tubelet_size" in fields:
        assert re.search(r"projection\.weight has shape .*different models", refusal(folder))
        return
    (folder / "preprocessor_config.json").write_text('{"crop_size": 32}')
    said = refusal(folder)
    assert re.search(r"position_embeddings has shape \[1, 9, 32\] but num_frames, image_size and tubelet_size", said)
    assert "give that size, or resize the table (transformers cannot:" in said


def test_transformers_cannot_interpolate_position_tables(checkpoints: Checkpoints) -> None:
    """If it learns to, the sentence above must change."""
    network = checkpoints.load().network
    pixels = torch.from_numpy(np.zeros((1, 4, 3, 32, 32), np.float32))
    with pytest.raises(RuntimeError, match="must match the size"):
        network(pixels, interpolate_pos_encoding=True)

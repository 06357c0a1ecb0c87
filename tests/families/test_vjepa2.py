"""V-JEPA 2: what is traced is the network, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import make_checkpoint
import numpy as np
import pytest
import torch
from checkpoints import edit_config, normal_pixels, refusal
from family_checkpoints import CASES, folder, loaded, traced
from graphs import ops, to_double
from rewriting import assert_same_function, double_pixels, node_named
from safetensors.torch import load_file, save_file

from vivit_export.anatomy import Anatomy
from vivit_export.bundle.manifest import Declined
from vivit_export.errors import InputError
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.graph.rewrites import apply_rewrites
from vivit_export.families import FAMILIES
from vivit_export.precision import Precision
from vivit_export.runtime.clips.pixels.processor_config import read_clip_geometry


@pytest.mark.parametrize("case", ["vjepa2", "vjepa2-no-bias"])
@pytest.mark.parametrize("fields", [{}, {"crop_size": 24, "hidden_size": 32}, {"frames_per_clip": 2, "patch_size": 4}])
def test_what_is_traced_is_the_network_in_float64(tmp_path: Path, case: str, fields: dict[str, int]) -> None:
    """Constant rotations, reordered channels and the pooler's one projection are the same function."""
    make_checkpoint.make_other("vjepa2", tmp_path, **{**CASES[case][1], **fields})
    checkpoint = load_checkpoint(str(tmp_path))
    network = checkpoint.network.double()
    pixels = torch.from_numpy(normal_pixels(checkpoint, 3)).double()
    with torch.inference_mode():
        expected = checkpoint.outputs(pixels)
        with checkpoint.adapter.traceable(network):
            found = checkpoint.outputs(pixels)
        after = checkpoint.outputs(pixels)
    for name, values in expected.items():
        bound = 1e-12 * float(np.ptp(values.numpy()))
        np.testing.assert_allclose(found[name], values, rtol=0, atol=bound)
        assert torch.equal(after[name], values)  # nothing of it stays


def test_rotations_are_tables_that_all_blocks_share() -> None:
    model = traced("vjepa2")
    assert not ops(model, "Sin") and not ops(model, "Cos")
    tables = {v.name for node in ops(model, "Mul") for v in node.inputs if v is not None and v.const_value is not None}
    assert tables == {"encoder.layer.0.attention.cos", "encoder.layer.0.attention.sin"}


def test_a_key_that_is_rotated_keeps_its_bias() -> None:
    """Softmax does not see what all keys have in common; after a rotation, they have not."""
    model = to_double(traced("vjepa2"))
    before = model.clone()
    applied = apply_rewrites(model, Precision.FP32)
    with_bias = {str(node.name) for node in ops(model, "Add")}
    rotated = [f"encoder.layer.{i}.attention" for i in range(2)]
    assert {f"{path}.key/Add" for path in rotated} <= with_bias
    assert not any("k_proj/Add" in name for name in with_bias)  # the pooler's are not rotated
    reason = "K is rotated by position after its bias, so softmax sees the bias"
    assert applied.declined == tuple(Declined("key-bias", f"{path}/Attention", reason) for path in rotated)
    pixels = double_pixels(loaded("vjepa2"))
    assert_same_function(before, model, pixels, of_range=1e-12)
    add = node_named(model, f"{rotated[0]}.key/Add")
    (product,) = (value for value in add.inputs if value is not None and value.const_value is None)
    add.outputs[0].replace_all_uses_with(product)
    with pytest.raises(AssertionError):
        assert_same_function(before, model, pixels, of_range=1e-4)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_no_bias_of_attention_is_left_in_low_precision(precision: Precision) -> None:
    model = traced("vjepa2")
    applied = apply_rewrites(model, precision)
    left = [str(n.name) for n in ops(model, "Add") if re.search(r"(query|key|value|[qkv]_proj)/Add$", str(n.name))]
    assert left == []
    anatomy = loaded("vjepa2").anatomy
    assert applied.counts["query-bias"] == applied.counts["value-bias"] == anatomy.num_attentions
    assert applied.counts.get("head-scales", 0) == (anatomy.num_attentions if precision is Precision.INT8 else 0)


def test_an_encoder_alone_ends_in_the_mean_of_its_tokens() -> None:
    checkpoint = loaded("vjepa2", headless=True)
    pixels = torch.from_numpy(normal_pixels(checkpoint, 2))
    with torch.inference_mode():
        tokens = checkpoint.network(pixels, skip_predictor=True).last_hidden_state
        (name,), (embedding,) = zip(*checkpoint.outputs(pixels).items(), strict=True)
    assert name == "embedding" and torch.equal(embedding, tokens.mean(1))
    assert checkpoint.anatomy.pooling == "mean" and len(checkpoint.anatomy.stacks) == 1


def test_the_predictor_is_not_needed(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder("vjepa2"), tmp_path / "copy"))
    state = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if ".predictor." not in name}
    assert len(kept) < len(state)
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    whole, found = loaded("vjepa2"), load_checkpoint(str(copy))
    pixels = normal_pixels(whole, 1)
    np.testing.assert_array_equal(found.run_eager(pixels)["logits"], whole.run_eager(pixels)["logits"])
    assert found.notes == whole.notes


def test_the_anatomy_of_the_published_sizes(tmp_path: Path) -> None:
    """ViT-L and ViT-g of facebook/vjepa2-*: heads of 64, and an MLP of 6144 from a ratio that is not a fraction."""
    large: dict[str, object] = {"model_type": "vjepa2", "id2label": {0: "a", 1: "b"}}
    giant = {
        **large,
        "hidden_size": 1408,
        "num_attention_heads": 22,
        "num_hidden_layers": 40,
        "mlp_ratio": 4.363636363636363,
        "crop_size": 384,
    }
    assert _anatomy(tmp_path, {**large, "frames_per_clip": 16}).tokens == 2048
    assert _anatomy(tmp_path, large).tokens == 8192
    found = _anatomy(tmp_path, giant)
    assert (found.tokens, found.heads, found.num_blocks, found.num_attentions) == (18432, 22, 43, 43)
    family = FAMILIES["vjepa2"]
    numbers = family.implied_numbers(giant, read_clip_geometry(tmp_path))
    assert numbers == pytest.approx(1.1e9, rel=0.05)


def _anatomy(tmp_path: Path, config: dict[str, object]) -> Anatomy:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return FAMILIES["vjepa2"].anatomy(config, read_clip_geometry(tmp_path))


def test_no_weight_is_implied_that_is_not_there() -> None:
    for checkpoint in (loaded("vjepa2"), loaded("vjepa2", headless=True)):
        implied = checkpoint.adapter.family.implied_numbers(checkpoint.config, checkpoint.clip)
        assert implied <= _weights(checkpoint) <= 1.1 * implied


def _weights(checkpoint: Checkpoint) -> int:
    return sum(p.numel() for name, p in checkpoint.network.named_parameters() if "predictor." not in name)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"in_chans": 1}, "in_chans=1; only RGB models"),
        ({"qkv_bias": None}, "qkv_bias must be true or false, got None"),
        ({"mlp_ratio": "4"}, "mlp_ratio times hidden_size must be from 1 to .* got mlp_ratio '4'"),
        ({"mlp_ratio": 1e9}, "mlp_ratio times hidden_size must be from 1 to"),
        ({"mlp_ratio": 0.001}, "mlp_ratio times hidden_size must be from 1 to"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio"),
        ({"mlp_ratio": 3}, "weight .*mlp.fc1.* has shape .* but"),
        ({"patch_size": [8, 8]}, r"patch_size must be a positive integer, got \[8, 8\]"),
        ({"crop_size": 0}, "crop_size must be a positive integer, got 0"),
        ({"hidden_size": 52, "num_attention_heads": 4}, "heads have 13 channels .* even number from 6"),
        ({"num_attention_heads": 16}, "heads have 4 channels"),
        ({"num_pooler_layers": 0}, "num_pooler_layers must be a whole number"),
        ({"num_pooler_layers": 3}, r"lacks 16 of the model's weights, the first is pooler\.self_attention_layers\.2"),
    ],
    ids=str,
)
def test_another_form_is_refused(tmp_path: Path, fields: dict[str, object], said: str) -> None:
    copy = Path(shutil.copytree(folder("vjepa2"), tmp_path / "copy"))
    edit_config(copy, **fields)
    sentence = refusal(copy)
    assert re.search(said, sentence), sentence


@pytest.mark.parametrize("fields", [{"crop_size": 20}, {"frames_per_clip": 3}])
def test_tubelets_that_do_not_fill_a_clip_are_refused(tmp_path: Path, fields: dict[str, int]) -> None:
    copy = Path(shutil.copytree(folder("vjepa2"), tmp_path / "copy"))
    edit_config(copy, **fields)
    with pytest.raises(InputError, match="is not a positive multiple of the tubelet's"):
        load_checkpoint(str(copy))

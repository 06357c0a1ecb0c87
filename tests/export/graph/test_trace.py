"""The traced graph: one op per idea, the function of the eager network, the same bytes everywhere."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers.models.vivit.modeling_vivit as modeling
from checkpoints import ROOT, Checkpoints, assert_as_hugging_face, edit_config, normal_pixels
from graphs import ops, run_ort, serialize

from vivit_export.errors import BuildError
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.graph.trace import trace

BOTH = ("logits", "embedding")

GEOMETRIES: list[dict[str, Any]] = [
    {"num_hidden_layers": 2},
    {"image_size": [16, 24], "qkv_bias": False},
    {"image_size": [24, 8], "tubelet_size": [1, 8, 4]},
    {"num_frames": 16, "tubelet_size": [4, 8, 8]},
    {"hidden_size": 64, "tubelet_size": [4, 16, 16]},  # heads of 32; one token and the class token
    {"hidden_size": 80, "num_attention_heads": 1},
    {"headless": True},
]
ACTIVATIONS = {
    "gelu_fast": ("Gelu", "tanh"),
    "gelu_new": ("Gelu", "tanh"),
    "gelu_pytorch_tanh": ("Gelu", "tanh"),
    "gelu": ("Gelu", "none"),
    "relu": ("Relu", None),
}


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("fields", [*GEOMETRIES, *({"hidden_act": a} for a in ACTIVATIONS)], ids=json.dumps)
def test_graph_computes_what_transformers_computes(checkpoints: Checkpoints, fields: dict[str, Any]) -> None:
    model, checkpoint = checkpoints.trace(**fields), checkpoints.load(**fields)
    for batch in (1, 2, 5):
        pixels = normal_pixels(checkpoint, batch, seed=batch)
        got = run_ort(model, pixels)
        assert list(got) == (["embedding"] if fields.get("headless") else list(BOTH))
        assert_as_hugging_face(got, checkpoints.folder(**fields), pixels)


@pytest.mark.parametrize("fields", GEOMETRIES, ids=json.dumps)
def test_attention_is_one_op_of_three_inputs_per_layer(checkpoints: Checkpoints, fields: dict[str, Any]) -> None:
    model, config = checkpoints.trace(**fields), checkpoints.load(**fields).config
    found = ops(model, "Attention")
    assert [node.name for node in found] == [
        f"layers.{i}.attention/Attention" for i in range(config["num_hidden_layers"])
    ]
    head_size = config["hidden_size"] // config["num_attention_heads"]
    for node in found:
        assert len(node.inputs) == 3
        assert node.attributes["scale"].as_float() == np.float32(head_size**-0.5)
        assert node.attributes.get_int("is_causal", 0) == 0
    kinds = {node.op_type for node in model.graph}
    assert not kinds & {"Softmax", "Where", "IsNaN", "Tanh", "Erf", "ReduceMean", "Sqrt", "Constant", "Dropout"}


def test_layer_norm_stays_one_op_with_float32_statistics(checkpoints: Checkpoints) -> None:
    found = ops(checkpoints.trace(num_hidden_layers=2), "LayerNormalization")
    before_and_after = [f"layers.{i}.layernorm_{side}" for i in range(2) for side in ("before", "after")]
    assert [str(node.name).rpartition("/")[0] for node in found] == [*before_and_after, "layernorm"]
    for node in found:
        assert node.attributes.get_int("stash_type", 1) == 1
        assert node.attributes["epsilon"].as_float() == np.float32(1e-6)


@pytest.mark.parametrize(("activation", "op", "approximate"), [(a, *op) for a, op in ACTIVATIONS.items()])
def test_activation_is_one_op(checkpoints: Checkpoints, activation: str, op: str, approximate: str | None) -> None:
    model = checkpoints.trace(hidden_act=activation)
    (node,) = ops(model, op)
    assert node.name == f"layers.0.mlp.activation_fn/{op}"
    assert approximate is None or node.attributes.get_string("approximate", "none") == approximate
    assert not {"Pow", "Tanh", "Erf", "Mul"} & {n.op_type for n in model.graph}


def test_tanh_gelus_of_transformers_are_torchs_function() -> None:
    x = torch.linspace(-30, 30, 100_001, dtype=torch.float64)
    expected = torch.nn.functional.gelu(x, approximate="tanh")
    for name in ("gelu_fast", "gelu_new", "gelu_pytorch_tanh"):
        torch.testing.assert_close(modeling.ACT2FN[name](x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("fields", GEOMETRIES, ids=json.dumps)
def test_only_the_batch_is_dynamic(checkpoints: Checkpoints, fields: dict[str, Any]) -> None:
    model, clip = checkpoints.trace(**fields), checkpoints.load(**fields).clip
    (pixels,) = model.graph.inputs
    assert pixels.name == "pixel_values"
    assert list(map(str, pixels.shape or ())) == ["batch", *map(str, (clip.num_frames, 3, clip.height, clip.width))]
    for value in [*model.graph.outputs, *(out for node in model.graph for out in node.outputs)]:
        assert value.shape is not None
        dynamic = [str(side) for side in value.shape if not isinstance(side, int)]
        assert dynamic in ([], ["batch"])


def test_names_carry_the_modules_path(checkpoints: Checkpoints) -> None:
    model, checkpoint = checkpoints.trace(num_hidden_layers=2), checkpoints.load(num_hidden_layers=2)
    modules = {name.removeprefix("vivit.") for name, _ in checkpoint.network.named_modules()}
    names = [str(node.name) for node in model.graph]
    assert len(set(names)) == len(names)
    assert {name.rpartition("/")[0] for name in names} <= modules
    linears = {
        name.removeprefix("vivit.") for name, m in checkpoint.network.named_modules() if isinstance(m, torch.nn.Linear)
    }
    assert {str(node.name).rpartition("/")[0] for node in [*ops(model, "MatMul"), *ops(model, "Gemm")]} == linears
    values = [str(value.name) for node in model.graph for value in node.outputs] + list(model.graph.initializers)
    assert len(set(values)) == len(values)
    assert {f"{linear}.weight" for linear in linears} <= set(values)
    assert not [value for value in values if value.startswith("val_")]


def test_weights_are_the_networks_own(checkpoints: Checkpoints) -> None:
    model, network = checkpoints.trace(), checkpoints.load().network
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear):
            weight = model.graph.initializers[f"{name.removeprefix('vivit.')}.weight"].const_value
            assert weight is not None
            expected = module.weight.detach().numpy()
            np.testing.assert_array_equal(weight.numpy(), expected if name == "classifier" else expected.T)


@pytest.mark.parametrize(("outputs", "has_classifier"), [(("logits",), True), (("embedding",), False)])
def test_only_the_outputs_asked_for(checkpoints: Checkpoints, outputs: tuple[str, ...], has_classifier: bool) -> None:
    model = trace(checkpoints.load(), outputs)
    assert tuple(str(value.name) for value in model.graph.outputs) == outputs
    assert ("classifier.weight" in model.graph.initializers) == has_classifier


# --- the same bytes ----------------------------------------------------------------------------


def test_attention_setting_of_the_checkpoint_does_not_matter(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "eager")
    edit_config(folder, attn_implementation="eager", _attn_implementation="eager")
    checkpoint = load_checkpoint(str(folder))
    checkpoint.network.set_attn_implementation("eager")
    assert serialize(trace(checkpoint, BOTH)) == serialize(checkpoints.trace())
    assert checkpoint.network.config._attn_implementation == "eager"


def test_another_process_gives_the_same_bytes(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "moved")
    code = (
        "import sys; from graphs import serialize\n"
        "from vivit_export.export.checkpoint.load import load_checkpoint\n"
        "from vivit_export.export.graph.trace import trace\n"
        f"sys.stdout.buffer.write(serialize(trace(load_checkpoint({str(folder)!r}), {BOTH!r})))"
    )
    searched = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "tests/support"))
    environment = {**os.environ, "PYTHONPATH": searched, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert done.stdout == serialize(checkpoints.trace())
    assert done.stderr == b"", "tracing must not clutter the screen"


def test_nothing_of_this_machine_is_in_the_file(checkpoints: Checkpoints) -> None:
    data = serialize(checkpoints.trace())
    texts = re.findall(rb"[\x20-\x7e]{4,}", data)
    for place in (sys.prefix, str(ROOT), str(checkpoints.folder()), "site-packages", ".py", "File ", "torch"):
        assert not [text for text in texts if place.encode() in text], place
    assert not [t for t in texts if t.strip() in (getpass.getuser().encode(), socket.gethostname().encode())]


# --- the network afterward --------------------------------------------------------------------


def snapshot(checkpoint: Checkpoint) -> dict[str, Any]:
    network = checkpoint.network
    return {
        "modules": [(name, id(module), type(module)) for name, module in network.named_modules()],
        "attention": network.config._attn_implementation,
        "mask": modeling.create_bidirectional_mask,
        "config": network.config.to_dict(),
        "training": [module.training for module in network.modules()],
        "gradients": [p.requires_grad for p in network.parameters()],
    }


def test_the_network_is_as_it_was(checkpoints: Checkpoints) -> None:
    checkpoint = load_checkpoint(str(checkpoints.folder()))
    before, weights = snapshot(checkpoint), {k: v.clone() for k, v in checkpoint.network.state_dict().items()}
    trace(checkpoint, ("embedding",))
    assert snapshot(checkpoint) == before
    assert all(torch.equal(value, weights[name]) for name, value in checkpoint.network.state_dict().items())


def test_the_network_is_as_it_was_after_a_failure(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = load_checkpoint(str(checkpoints.folder()))
    before = snapshot(checkpoint)

    def fail(*_args: object, **_options: object) -> None:
        assert snapshot(checkpoint) != before
        raise RuntimeError("the exporter gave up\nsecond line")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(BuildError, match=r"^torch could not trace the network: the exporter gave up$"):
        trace(checkpoint, BOTH)
    assert snapshot(checkpoint) == before


def test_masked_attention_is_refused(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should another transformers build its mask elsewhere, that must not go unnoticed."""
    checkpoint = load_checkpoint(str(checkpoints.folder()))
    attention = torch.nn.functional.scaled_dot_product_attention

    def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        mask = query.new_ones((query.shape[0], 1, query.shape[2], key.shape[2])).bool()
        return attention(query, key, value, **{**options, "attn_mask": mask})

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", masked)
    with pytest.raises(BuildError, match=r"1 Attention nodes \(masked: 1\) for 1 attentions; .*constraints\.txt"):
        trace(checkpoint, BOTH)

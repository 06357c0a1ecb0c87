"""What the family says of factorised ViViTs is what their networks have; their graphs compute what scenic did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import scenic_trees
import torch
from attacked import within_limits
from graphs import run_double, to_double

from vivit_export.contract import Clip
from vivit_export.errors import CheckpointError
from vivit_export.export.checkpoint.config import read_config
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.convert import convert_scenic
from vivit_export.export.graph.rewrites import apply_rewrites
from vivit_export.export.graph.taps import find_steps
from vivit_export.export.graph.trace import trace
from vivit_export.families.vivit_factorised import VivitFactorised
from vivit_export.precision import Precision

KINDS = scenic_trees.KINDS[1:]
Traced = tuple[str, Checkpoint, ir.Model]


@pytest.fixture(scope="module", params=KINDS)
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """Each kind, converted, loaded and traced once."""
    folder = tmp_path_factory.mktemp(request.param)
    tree = scenic_trees.tree_of(scenic_trees.flat_parameters(request.param))
    (folder / "checkpoint").write_bytes(scenic_trees.flax_bytes({"params": tree}))
    made = convert_scenic(folder / "checkpoint", folder / "converted", num_frames=scenic_trees.FRAMES)
    checkpoint = load_checkpoint(str(made.path))
    return request.param, checkpoint, trace(checkpoint, ("logits", "embedding"))


def test_the_anatomy_is_that_of_the_network(traced: Traced) -> None:
    _, checkpoint, _ = traced
    anatomy, modules = checkpoint.anatomy, dict(checkpoint.encoder.named_modules())
    linears = [name for name, m in modules.items() if isinstance(m, torch.nn.Linear) and anatomy.in_block(name)]
    norms = [name for name, m in modules.items() if isinstance(m, torch.nn.LayerNorm) and anatomy.in_block(name)]
    assert (len(linears), len(norms)) == (anatomy.num_linears, anatomy.num_norms)
    for stack in anatomy.stacks:
        assert len(modules[stack.path]) == stack.blocks
        assert all(f"{stack.path}.0.{attention.path}" in modules for attention in stack.attentions)
    with torch.inference_mode():
        tokens = modules["embeddings"](torch.zeros(1, 8, 3, 32, 32))
    assert tokens.shape[0] * tokens.shape[1] == anatomy.tokens


def test_the_taps_follow_each_other_through_every_norm(traced: Traced) -> None:
    _, checkpoint, model = traced
    steps = find_steps(model, checkpoint.taps)
    assert all(step.nodes for step in steps[:-2]), [step.name for step in steps if not step.nodes]
    norms = {name for name, m in checkpoint.encoder.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert {tap.norm for tap in checkpoint.taps} == norms
    assert all(any(name == p or name.startswith(f"{p}.") for name, _ in checkpoint.encoder.named_modules())
               for tap in checkpoint.taps for p in tap.paths)  # fmt: skip


def test_each_attention_is_one_op_with_a_name_of_its_own(traced: Traced) -> None:
    kind, checkpoint, model = traced
    found = [str(node.name) for node in model.graph if node.op_type == "Attention"]
    assert len(found) == len(set(found)) == checkpoint.anatomy.num_attentions == {"encoder": 5}.get(kind, 6)
    expected = [
        f"{stack.path}.{i}.{attention.path}/Attention"
        for stack in checkpoint.anatomy.stacks
        for i in range(stack.blocks)
        for attention in stack.attentions
    ]
    assert found == expected


def test_the_rewritten_graph_gives_scenics_logits(traced: Traced) -> None:
    """Up to the rounding of the weights to float32."""
    kind, checkpoint, model = traced
    rewritten = model.clone()
    counts = apply_rewrites(rewritten, Precision.FP32).counts
    anatomy = checkpoint.anatomy
    assert counts["layernorm"] == anatomy.num_norms
    if kind != "dot_product":  # whose Q, K and V are each split in two
        assert {counts[name] for name in ("attention-scale", "key-bias", "value-bias")} == {anatomy.num_attentions}
    pixels = scenic_trees.clips().transpose(0, 1, 4, 2, 3)
    expected = scenic_trees.recorded_logits(kind)
    for graph in (model, rewritten):
        logits = run_double(to_double(graph), pixels)["logits"]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6 * float(np.ptp(expected)))


@pytest.mark.parametrize(
    ("fields", "tera_macs"),
    [
        ({"factorisation": "encoder"}, 0.280),
        ({"factorisation": "self_attention"}, 0.367),
        ({"factorisation": "dot_product"}, 0.273),
    ],
)
def test_the_operations_of_vivit_b(fields: dict[str, Any], tera_macs: float) -> None:
    """Multiplications with additions, counted by hand for B/16x2: tokens, Linears, scores and their products."""
    family, clip = VivitFactorised(), Clip(num_frames=32, height=224, width=224, tubelet_size=(2, 16, 16))
    assert family.anatomy(fields, clip).flops / 2e12 == pytest.approx(tera_macs, abs=1e-3)


def test_without_a_classifier(traced: Traced, tmp_path: Path) -> None:
    _, checkpoint, _ = traced
    checkpoint.encoder.save_pretrained(tmp_path)  # type: ignore[operator]
    source = Path(checkpoint.source)
    (tmp_path / "preprocessor_config.json").write_bytes((source / "preprocessor_config.json").read_bytes())
    encoder = load_checkpoint(str(tmp_path))
    assert not encoder.has_head
    pixels = scenic_trees.clips().transpose(0, 1, 4, 2, 3).astype(np.float32)
    expected = checkpoint.run_eager(pixels)["embedding"]
    np.testing.assert_array_equal(encoder.run_eager(pixels)["embedding"], expected)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"factorisation": "tokens"}, "factorisation 'tokens' is not one of encoder, self_attention, dot_product"),
        ({"factorisation": ["encoder"]}, r"factorisation \['encoder'\] is not one of"),
        ({"attention_order": "space"}, "attention_order 'space' is not one of time_space, space_time"),
        ({"factorisation": "dot_product", "num_attention_heads": 3}, "num_attention_heads=3 is odd"),
        ({"temporal_num_attention_heads": 5}, "hidden_size=96 does not divide by temporal_num_attention_heads=5"),
        ({"temporal_num_attention_heads": 0}, "temporal_num_attention_heads must be a whole number from 1 to 65536"),
        ({"temporal_intermediate_size": "8"}, "temporal_intermediate_size must be a whole number from 1 to 65536"),
        ({"temporal_num_hidden_layers": True}, "temporal_num_hidden_layers must be a whole number from 1 to 65536"),
    ],
)
def test_a_config_of_no_network_is_refused(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    config = {"model_type": "vivit_factorised", "hidden_size": 96, "num_attention_heads": 4, **fields}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"config.json: {told}"):
        read_config(tmp_path)


def test_a_second_stack_that_is_not_stored_is_refused_before_memory_is_spent(traced: Traced, tmp_path: Path) -> None:
    kind, checkpoint, _ = traced
    if kind != "encoder":
        return
    source = Path(checkpoint.source)
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    config |= {"temporal_intermediate_size": 65536, "temporal_num_hidden_layers": 60}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with within_limits(), pytest.raises(CheckpointError, match=r"config\.json implies \d+ numbers, but only"):
        load_checkpoint(str(tmp_path))

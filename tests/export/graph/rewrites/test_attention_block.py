"""Blocks that are not quite the one that the rewrites know are left alone, and it is said why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints
from graphs import to_double
from rewriting import (
    DEEP,
    LAYERS,
    PER_BLOCK,
    all_but,
    assert_same_function,
    double_pixels,
    expected_counts,
    insert_after,
    node_named,
)

from vivit_export.export.graph.rewrites import apply_rewrites
from vivit_export.precision import Precision
from vivit_export.rewrite import REWRITE_NAMES


def relu_before_q(model: ir.Model) -> None:
    insert_after(model, "layers.0.layernorm_before/LayerNormalization", "Relu", readers="q_proj")


def relu_behind_k(model: ir.Model) -> None:
    insert_after(model, "layers.0.attention.k_proj/Add", "Relu")


def relu_behind_attention(model: ir.Model) -> None:
    insert_after(model, "layers.0.attention/Attention", "Relu")


def key_as_value(model: ir.Model) -> None:
    attention = node_named(model, "layers.0.attention/Attention")
    attention.replace_input_with(2, attention.inputs[1])


def q_read_twice(model: ir.Model) -> None:
    """The sum of q_proj also goes into the residual."""
    node_named(model, "layers.0/Add").replace_input_with(
        1, node_named(model, "layers.0.attention.q_proj/Add").outputs[0]
    )


def norm_read_by_the_residual(model: ir.Model) -> None:
    out = node_named(model, "layers.0.layernorm_before/LayerNormalization").outputs[0]
    node_named(model, "layers.0/Add").replace_input_with(1, out)


def masked(model: ir.Model) -> None:
    attention = node_named(model, "layers.0.attention/Attention")
    mask = np.zeros((9, 9))
    mask[:, 7:] = -np.inf
    value = ir.Value(name="mask", const_value=ir.tensor(mask, name="mask"))
    value.type, value.shape = ir.TensorType(ir.DataType.DOUBLE), ir.Shape((9, 9))
    model.graph.register_initializer(value)
    attention.resize_inputs(4)
    attention.replace_input_with(3, value)


def bias_per_token(model: ir.Model) -> None:
    for linear in "qkv":
        add = node_named(model, f"layers.0.attention.{linear}_proj/Add")
        array = np.random.default_rng(0).standard_normal((9, 32))
        value = ir.Value(name=f"tokens_{linear}", const_value=ir.tensor(array, name=f"tokens_{linear}"))
        value.type, value.shape = ir.TensorType(ir.DataType.DOUBLE), ir.Shape((9, 32))
        model.graph.register_initializer(value)
        add.replace_input_with(1, value)


def context_is_an_output(model: ir.Model) -> None:
    model.graph.outputs.append(node_named(model, "layers.0.attention/Reshape_4").outputs[0])


def scores_are_capped(model: ir.Model) -> None:
    node_named(model, "layers.0.attention/Attention").attributes["softcap"] = ir.AttrFloat32("softcap", 2.0)


def heads_stay_apart(model: ir.Model) -> None:
    """Heads are joined in another order than they were split."""
    node = node_named(model, "layers.0.attention/Transpose_4")
    node.attributes["perm"] = ir.AttrInt64s("perm", [0, 2, 3, 1])
    node.outputs[0].shape = None


# What still matches in the block that was changed, and what is said of the rest; the other block matches as ever.
PROJECTIONS = "Q, K or V is not a Linear with constant weights, split into heads, that nothing else reads"
OUTPUT = "the joined heads are not read by one Linear alone, with constant weights"
UNUSUAL: list[tuple[Callable[[ir.Model], None], dict[str, int], str]] = [
    (relu_before_q, {"layernorm": 1}, "Q, K and V are not made of one LayerNormalization with a bias"),
    (relu_behind_k, {"layernorm": 2}, PROJECTIONS),
    (relu_behind_attention, {"layernorm": 2}, OUTPUT),
    (key_as_value, {"layernorm": 2}, "more than attention reads Q, K or V"),
    (q_read_twice, {"layernorm": 2}, PROJECTIONS),
    (norm_read_by_the_residual, {"layernorm": 1, "attention-scale": 1, "key-bias": 1, "value-bias": 1}, ""),
    (masked, {"layernorm": 2}, "it has a mask, a softcap or other outputs, or no scale of its own"),
    (bias_per_token, {"layernorm": 2}, PROJECTIONS),
    (context_is_an_output, {"layernorm": 2}, OUTPUT),
    (heads_stay_apart, {"layernorm": 2}, OUTPUT),
    (scores_are_capped, {"layernorm": 2}, "it has a mask, a softcap or other outputs, or no scale of its own"),
]


@pytest.mark.parametrize(("change", "kept", "reason"), UNUSUAL, ids=[change.__name__ for change, _, _ in UNUSUAL])
def test_what_they_do_not_recognize_is_left_alone(
    checkpoints: Checkpoints, change: Callable[[ir.Model], None], kept: dict[str, int], reason: str
) -> None:
    before = to_double(checkpoints.trace(**DEEP))
    change(before)
    after = before.clone()
    counts = {name: count + kept.get(name, 0) for name, count in expected_counts(LAYERS - 1).items()}
    applied = apply_rewrites(after, Precision.FP16)
    assert applied.counts == counts
    said = {one.rewrite: one.reason for one in applied.declined if one.node == "layers.0.attention/Attention"}
    silent = {name for name in PER_BLOCK if counts[name] == expected_counts(LAYERS)[name]}
    assert said.keys() == PER_BLOCK.keys() - silent - {"layernorm"}
    assert said["query-bias"] == reason or change is norm_read_by_the_residual
    assert_same_function(before, after, double_pixels(checkpoints.load(**DEEP)))
    for name in REWRITE_NAMES:
        after = before.clone()
        apply_rewrites(after, Precision.FP16, all_but(name))
        assert_same_function(before, after, double_pixels(checkpoints.load(**DEEP)))

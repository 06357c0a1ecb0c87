"""Tokens that nothing reads are dropped, others are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints
from graphs import ops, to_double
from rewriting import DEEP, LAYERS, assert_same_function, double_pixels, insert_after, node_named

from vivit_export.export.graph.rewrites import apply_rewrites, lower_attention
from vivit_export.precision import Precision


def another_token(model: ir.Model) -> None:
    (gather,) = ops(model, "Gather")
    index = gather.inputs[1]
    assert index is not None
    index.const_value = ir.tensor(np.array(2, np.int64), name=index.name)


def all_tokens_are_an_output(model: ir.Model) -> None:
    model.graph.outputs.append(node_named(model, "layers.1.mlp.fc2/Add").outputs[0])


def bias_per_token_behind(model: ir.Model) -> None:
    insert_after(model, "layers.1.mlp.fc2/Add", "Add", np.random.default_rng(0).standard_normal((9, 1)))


def tokens_meet_behind(model: ir.Model) -> None:
    insert_after(model, "layers.1.mlp.fc2/Add", "ReduceMean", np.array([1]))


def relu_behind_last_attention(model: ir.Model) -> None:
    insert_after(model, "layers.1.attention/Attention", "Relu")


UNUSUAL: list[tuple[Callable[[ir.Model], None], str]] = [
    (another_token, "it does not read the class token alone"),
    (all_tokens_are_an_output, "something else reads the tokens after the last attention"),
    (bias_per_token_behind, "layers.1.mlp.fc2/Add/Add is not known to treat tokens one by one"),
    (tokens_meet_behind, "layers.1.mlp.fc2/Add/ReduceMean is not known to treat tokens one by one"),
    (relu_behind_last_attention, ""),
]


@pytest.mark.parametrize(("change", "reason"), UNUSUAL, ids=[change.__name__ for change, _ in UNUSUAL])
def test_tokens_that_are_read_are_kept(
    checkpoints: Checkpoints, change: Callable[[ir.Model], None], reason: str
) -> None:
    before = to_double(checkpoints.trace(**DEEP))
    change(before)
    after = before.clone()
    applied = apply_rewrites(after, Precision.FP16)
    assert applied.counts["class-token"] == 0
    (declined,) = (one for one in applied.declined if one.rewrite == "class-token")
    assert declined.node == ops(before, "Gather")[0].name
    assert declined.reason == reason or not reason
    assert_same_function(before, after, double_pixels(checkpoints.load(**DEEP)))


def test_one_token_alone_goes_through_the_last_block(checkpoints: Checkpoints) -> None:
    model = checkpoints.trace(**DEEP)
    apply_rewrites(model, Precision.FP16)
    lower_attention(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    tokens = checkpoints.load(**DEEP).anatomy.tokens
    for name in (".attention.o_proj/MatMul", ".attention/Softmax", "/Add", ".mlp.fc1/MatMul", ".mlp.fc2/MatMul"):
        shapes = [node_named(model, f"layers.{i}{name}").outputs[0].shape for i in range(LAYERS)]
        assert [shape[-2] for shape in shapes if shape is not None] == [tokens, 1], name
    for key in ("k_proj", "v_proj"):
        shape = node_named(model, f"layers.1.attention.{key}/MatMul").outputs[0].shape
        assert shape is not None and shape[1] == tokens

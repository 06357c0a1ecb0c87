"""Networks, weights and comparisons for tests of exact rewrites."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from checkpoints import normal_pixels
from graphs import run_double

from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.rewrite import REWRITE_NAMES, Rewrite

Float64 = npt.NDArray[np.float64]

LAYERS = 2

DEEP: dict[str, Any] = {"num_hidden_layers": LAYERS}

PER_BLOCK = {"layernorm": 2, "attention-scale": 1, "key-bias": 1, "value-bias": 1, "query-bias": 1}

PLACED = tuple(expected for expected in REWRITE_NAMES if Rewrite(expected).usual)
"""Rewrites that a ViViT has places for."""

BIASES = ("key-bias", "value-bias", "query-bias")

# Head sizes 16, 32 and 80, other activations, another shape of clip.
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": DEEP,
    "head-32": {"hidden_size": 64, **DEEP},
    "head-80": {"hidden_size": 160, **DEEP},
    "one-head": {"hidden_size": 80, "num_attention_heads": 1, **DEEP},
    "no-qkv-bias": {"qkv_bias": False, **DEEP},
    "non-square": {"image_size": [16, 24], **DEEP},
    "gelu": {"hidden_act": "gelu"},
    "relu": {"hidden_act": "relu"},
    "headless": {"headless": True},
}


def all_but(name: str) -> tuple[str, ...]:
    """What to skip so that only one rewrite is applied; nothing for ``all``."""
    return () if name == "all" else tuple(other for other in REWRITE_NAMES if other != name)


def expected_counts(layers: int) -> dict[str, int]:
    return {"patch-embedding": 1, **{name: count * layers for name, count in PER_BLOCK.items()}, "class-token": 1}


def double_pixels(checkpoint: Checkpoint, num_clips: int = 2) -> Float64:
    return normal_pixels(checkpoint, num_clips).astype(np.float64)


def assert_same_function(before: ir.Model, after: ir.Model, feed: Float64, of_range: float | None = None) -> None:
    """Both are float64 graphs; they may differ by 1e-10, or by this share of the range of an output."""
    expected, got = run_double(before, feed), run_double(after, feed)
    assert got.keys() == expected.keys()
    for name, array in got.items():
        bound = 1e-10 if of_range is None else of_range * float(np.ptp(expected[name]))
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=bound, err_msg=name)


def constant(model: ir.Model, name: str) -> Float64:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return np.array(value.numpy())


def set_constant(model: ir.Model, name: str, array: npt.NDArray[Any]) -> None:
    value = model.graph.initializers[name]
    assert value.const_value is not None and array.shape == value.const_value.numpy().shape
    value.const_value = ir.tensor(array.astype(value.const_value.numpy().dtype), name=name)


def node_named(model: ir.Model, name: str) -> ir.Node:
    (node,) = (n for n in model.graph if n.name == name)
    return node


def insert_after(model: ir.Model, name: str, op: str, *inputs: npt.NDArray[Any], readers: str = "") -> None:
    """Put an op behind a node, for all its readers or those whose name contains ``readers``."""
    node = node_named(model, name)
    out, extra = node.outputs[0], []
    for i, array in enumerate(inputs):
        value = ir.Value(name=f"extra{i}", const_value=ir.tensor(array, name=f"extra{i}"))
        value.type, value.shape = ir.TensorType(ir.DataType.from_numpy(array.dtype)), ir.Shape(array.shape)
        model.graph.register_initializer(value)
        extra.append(value)
    new = ir.node(op, [out, *extra], name=f"{name}/{op}")
    new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = f"{name}.{op}", out.type, out.shape
    for reader, index in list(out.uses()):
        if reader is not new and readers in str(reader.name):
            reader.replace_input_with(index, new.outputs[0])
    model.graph.insert_after(node, new)

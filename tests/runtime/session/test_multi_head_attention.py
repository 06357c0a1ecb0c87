"""The graph that ONNX Runtime gets on the CPU: lean attention that computes the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import Bundles, need, random_crops
from onnx import TensorProto, helper, numpy_helper

import vivit_export as ve
from vivit_export.runtime.session.multi_head_attention import use_multi_head_attention
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession
from vivit_export.runtime.session.widen import load_widened

_ROUNDING = {"fp32": 1e-5, "fp16": 0.02}


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("attention", ["fused-op", "pattern"])
def test_attention_of_all_tokens_is_replaced_in_every_form(bundles: Bundles, attention: str, precision: str) -> None:
    bundle = bundles.demo(precision=precision, attention=attention)
    model = load_widened(bundle)
    weights = {t.name for t in model.graph.initializer if len(t.dims) > 1}
    # The last of four attends from the class token alone: its scores are one row per head.
    assert use_multi_head_attention(model) == 3
    found = ops(model)
    assert found["MultiHeadAttention"] == 3
    assert (found["Attention"], found["Softmax"]) == (0, 1)
    assert model.opset_import[0].version <= 22  # ONNX Runtime 1.23 has no QuantizeLinear of 23
    onnx.checker.check_model(model)
    assert weights == {t.name for t in model.graph.initializer if len(t.dims) > 1}
    assert use_multi_head_attention(model) == 0


@pytest.mark.parametrize("attention", ["fused-op", "pattern"])
def test_it_computes_what_the_bundles_graph_does(bundles: Bundles, attention: str) -> None:
    need("onnxruntime")
    bundle = bundles.demo(attention=attention)
    clips = random_crops(bundle, 3)
    expected = OnnxRuntimeSession(bundle.model).run(clips)
    with ve.open_session(bundle, prefer="onnxruntime-cpu") as session:
        assert "3 MultiHeadAttention ops" in session.details
        for name, array in session.run(clips).items():
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5)


def attention_model(scale: float = 0.3, *, joined: int = 12, **attributes: Any) -> onnx.ModelProto:
    """3 heads of 4 channels over 5 tokens, with a scale that is not a power of two."""
    nodes = []
    for name in "qkv":
        nodes.append(helper.make_node("Reshape", [name, "split"], [f"{name}3"], allowzero=1))
        nodes.append(helper.make_node("Transpose", [f"{name}3"], [f"{name}4"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Attention", ["q4", "k4", "v4"], ["a4"], name="a", scale=scale, **attributes))
    nodes.append(helper.make_node("Transpose", ["a4"], ["a3"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["a3", "join"], ["y"], allowzero=1))
    shapes = {"split": [-1, 5, 3, 4], "join": [-1, 5 * 12 // joined, joined]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 5, 12]) for name in "qkv"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, joined])],
        [numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def run(model: onnx.ModelProto) -> np.ndarray:
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((2, 5, 12), dtype=np.float32) for name in "qkv"}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], inputs)[0])


def test_the_scale_and_the_heads_are_kept() -> None:
    need("onnxruntime")
    model = attention_model()
    expected = run(model)
    assert use_multi_head_attention(model) == 1
    assert dict(ops(model)) == {"MultiHeadAttention": 1}
    np.testing.assert_allclose(run(model), expected, rtol=0, atol=1e-6)


def test_a_scale_that_is_not_given_is_that_of_the_operator() -> None:
    need("onnxruntime")
    model = attention_model()
    node = next(node for node in model.graph.node if node.op_type == "Attention")
    del node.attribute[:]
    expected = run(model)
    assert use_multi_head_attention(model) == 1
    np.testing.assert_allclose(run(model), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attributes", [{"is_causal": 1}, {"softcap": 3.0}])
def test_another_function_is_left_alone(attributes: dict[str, Any]) -> None:
    model = attention_model(**attributes)
    before = model.SerializeToString()
    assert use_multi_head_attention(model) == 0
    assert model.SerializeToString() == before


def test_other_surroundings_are_left_alone() -> None:
    masked, shared, odd = attention_model(), attention_model(), attention_model(joined=6)
    next(node for node in masked.graph.node if node.op_type == "Attention").input.append("mask")
    shared.graph.output.append(helper.make_tensor_value_info("a4", TensorProto.FLOAT, ["batch", 3, 5, 4]))
    for model in (masked, shared, odd):
        assert use_multi_head_attention(model) == 0


def rotated_model(table: tuple[int, ...] = (5, 4), order: tuple[int, int] = (1, 0), axis: int = -1) -> onnx.ModelProto:
    """As `attention_model`, with Q and K rotated by position."""
    model = attention_model()
    rng = np.random.default_rng(1)
    tables = {name: rng.standard_normal(table, dtype=np.float32) for name in ("cos", "sin")}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tables.items())
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        heads = node.output[0]
        if heads in ("q4", "k4"):
            halves = [f"{heads}.{i}" for i in range(2)]
            nodes += [
                helper.make_node("Mul", [heads, "cos"], [f"{heads}.straight"]),
                helper.make_node("Split", [heads], halves, axis=axis, num_outputs=2),
                helper.make_node("Concat", [halves[i] for i in order], [f"{heads}.swapped"], axis=axis),
                helper.make_node("Mul", ["sin", f"{heads}.swapped"], [f"{heads}.turned"]),
                helper.make_node("Add", [f"{heads}.turned", f"{heads}.straight"], [f"{heads}.rotated"]),
            ]
        elif node.op_type == "Attention":
            node.input[:2] = ["q4.rotated", "k4.rotated"]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("axis", [-1, 3])
def test_heads_that_are_rotated_by_position_are_joined_again(axis: int) -> None:
    need("onnxruntime")
    model = rotated_model(axis=axis)
    expected = run(model)
    assert use_multi_head_attention(model) == 1
    found = ops(model)
    assert found["MultiHeadAttention"] == 1 and found["Attention"] == 0
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model), expected, rtol=0, atol=1e-5)


def test_a_rotation_that_q_and_k_share_is_joined_for_each() -> None:
    need("onnxruntime")
    model = rotated_model()
    attention = next(node for node in model.graph.node if node.op_type == "Attention")
    attention.input[1] = attention.input[0]
    expected = run(model)
    assert use_multi_head_attention(model) == 1
    np.testing.assert_allclose(run(model), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{"table": (1, 4)}, {"table": (3, 5, 4)}, {"table": (4,)}, {"order": (0, 1)}, {"axis": 2}],
    ids=str,
)
def test_another_rotation_is_left_alone(fields: dict[str, Any]) -> None:
    model = rotated_model(**fields)
    before = model.SerializeToString()
    assert use_multi_head_attention(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("attention", ["fused-op", "pattern"])
def test_every_attention_of_a_vjepa2_is_replaced(tmp_path: Path, precision: str, attention: str) -> None:
    need("onnxruntime", "torch")
    import family_checkpoints  # it needs torch

    options: dict[str, Any] = {"precision": precision, "attention": attention}
    checkpoint = family_checkpoints.folder("vjepa2")
    bundle = ve.export_model(checkpoint, tmp_path / "out", targets=("onnx",), num_clips=1, **options)
    clips = random_crops(bundle, 3)
    expected = OnnxRuntimeSession(bundle.model).run(clips)
    with ve.open_session(bundle, prefer="onnxruntime-cpu") as session:
        assert "4 MultiHeadAttention ops" in session.details
        # Of narrow weights, the graph in the bundle rounds what it computes.
        np.testing.assert_allclose(session.run(clips)["logits"], expected["logits"], rtol=0, atol=_ROUNDING[precision])

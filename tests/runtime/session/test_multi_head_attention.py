"""The graph that ONNX Runtime gets on the CPU: lean attention, and float32 throughout."""

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
from vivit_export.bundle import Bundle
from vivit_export.runtime.session.multi_head_attention import use_multi_head_attention
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession
from vivit_export.runtime.session.widen import load_widened, widen_to_float32


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("attention", ["fused-op", "pattern"])
def test_attention_of_all_tokens_is_replaced_in_every_form(bundles: Bundles, attention: str, precision: str) -> None:
    bundle = bundles.demo(precision=precision, attention=attention)
    model = load_widened(bundle, weights=False)
    weights = {t.name for t in model.graph.initializer if len(t.dims) > 1}
    # The last of four attends from the class token alone: its scores are one row per head.
    assert use_multi_head_attention(model) == 3
    found = ops(model)
    assert found["MultiHeadAttention"] == 3
    assert found["Attention"] + found["Softmax"] == 1
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
    """3 heads of 4 channels over 5 tokens, with a scale that is no power of two."""
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


# --- widening ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_nothing_narrow_is_left_but_stored_weights(bundles: Bundles, precision: str) -> None:
    model = load_widened(bundles.demo(precision=precision), weights=False)
    narrow = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    stored = {t.name for t in model.graph.initializer if t.data_type in narrow}
    cast = {n.input[0] for n in model.graph.node if n.op_type == "Cast" and n.name.endswith("/Widen")}
    assert stored == cast
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert not [v.name for v in inferred.graph.value_info if v.type.tensor_type.elem_type in narrow]
    onnx.checker.check_model(model, full_check=True)


def test_weights_keep_their_values() -> None:
    values = np.array([1.0009765625, -65504, 6e-8], np.float16)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [3])],
        [numpy_helper.from_array(values, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert widen_to_float32(model) == 1
    weight = numpy_helper.to_array(model.graph.initializer[0])
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, values.astype(np.float32))
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("engine", ["onnxruntime-cpu", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_in_a_file_of_their_own(bundles: Bundles, tmp_path: Path, precision: str, engine: str) -> None:
    need(engine.removesuffix("-cpu"))
    bundle = bundles.demo(precision=precision)
    external = Bundle(tmp_path, bundle.manifest, bundle.contract)
    onnx.save(onnx.load(bundle.model), external.model, save_as_external_data=True, location="model.onnx.data")
    clips = random_crops(bundle, 2)
    with ve.open_session(bundle, prefer=engine) as inside, ve.open_session(external, prefer=engine) as outside:
        np.testing.assert_array_equal(inside.infer(clips), outside.infer(clips))

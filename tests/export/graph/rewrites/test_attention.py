"""Rewrites are exact: in float64 the graph before and after computes the same function."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints, assert_as_hugging_face, normal_pixels
from graphs import ops, parse, run_ort

from vivit_export.export.graph.rewrites import lower_attention

Float64 = npt.NDArray[np.float64]

# Q, K and V as the trace has them: projections of one input, split into heads by a transpose each.
ATTENTION = """
<ir_version: 10, opset_import: ["" : 23]>
attention (float[batch, {tokens}, {width}] x) => (float[batch, {tokens}, {heads}, {size}] y) {{
    q_rows = MatMul(x, q_weight)
    q_split = Reshape(q_rows, split)
    q = Transpose<perm = [0, 2, 1, 3]>(q_split)
    k_rows = MatMul(x, k_weight)
    k_split = Reshape(k_rows, split)
    k = Transpose<perm = [0, 2, 1, 3]>(k_split)
    v_rows = MatMul(x, v_weight)
    v_split = Reshape(v_rows, split)
    v = Transpose<perm = [0, 2, 1, 3]>(v_split)
    attended = Attention<scale = {scale}, is_causal = 0>(q, k, v)
    y = Transpose<perm = [0, 2, 1, 3]>(attended)
}}
"""


def attention_graph(tokens: int, heads: int, size: int, seed: int, scale: float | None = None) -> ir.Model:
    rng = np.random.default_rng(seed)
    width = heads * size
    weights = {f"{n}_weight": rng.standard_normal((width, width)).astype(np.float32) / width**0.5 for n in "qkv"}
    split = np.array([0, tokens, heads, size], np.int64)
    text = ATTENTION.format(tokens=tokens, width=width, heads=heads, size=size, scale=scale or size**-0.5)
    return parse(text, split=split, **weights)


def evaluate_in_double(model: ir.Model, x: Float64) -> Float64:
    """Run the float32 graph's function in float64, in ONNX's reference evaluator."""
    proto = ir.to_proto(model)
    for i, weight in enumerate(proto.graph.initializer):
        array = onnx.numpy_helper.to_array(weight)
        if array.dtype == np.float32:
            proto.graph.initializer[i].CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float64), weight.name))
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    (y,) = map(np.asarray, onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x}))
    assert y.dtype == np.float64
    return y


def attend(model: ir.Model, x: Float64) -> Float64:
    """Softmax(s Q K^T) V, written down independently of ONNX."""

    def heads(name: str) -> Float64:
        weight = model.graph.initializers[f"{name}_weight"].const_value
        assert weight is not None
        rows = x @ weight.numpy().astype(np.float64)
        split = model.graph.initializers["split"].const_value
        assert split is not None
        return np.asarray(rows.reshape(len(x), *split.numpy()[1:]).swapaxes(1, 2))

    (node,) = ops(model, "Attention")
    q, k, v = heads("q"), heads("k"), heads("v")
    scores = node.attributes["scale"].as_float() * np.einsum("bhik,bhjk->bhij", q, k)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(np.einsum("bhij,bhjk->bihk", weights / weights.sum(axis=-1, keepdims=True), v))


# Scales: 1/4 and 1/8 are exact; 48**-0.5 and 80**-0.5 are rounded; the last is none of head size's.
@pytest.mark.parametrize(
    ("tokens", "heads", "size", "scale"),
    [(7, 2, 16, None), (5, 1, 64, None), (9, 3, 48, None), (1, 1, 80, None), (6, 4, 8, 0.3)],
)
@pytest.mark.parametrize("seed", range(4))
def test_lowered_attention_is_the_same_function(
    tokens: int, heads: int, size: int, scale: float | None, seed: int
) -> None:
    model = attention_graph(tokens, heads, size, seed, scale)
    x = np.random.default_rng(seed).standard_normal((3, tokens, heads * size)) * 4
    expected = attend(model, x)
    # The reference evaluator takes the root of the op's scale in float32.
    np.testing.assert_allclose(evaluate_in_double(model, x), expected, rtol=0, atol=1e-5)
    assert lower_attention(model) == 1
    np.testing.assert_allclose(evaluate_in_double(model, x), expected, rtol=1e-12, atol=1e-13)


def test_scale_goes_on_q_before_the_product() -> None:
    model = attention_graph(7, 2, 16, 0)
    lower_attention(model)
    (scale,), (softmax,) = ops(model, "Mul"), ops(model, "Softmax")
    assert scale.inputs[0] is ops(model, "Transpose")[0].outputs[0]
    scores = softmax.inputs[0]
    assert scores is not None and scores.producer() is not None
    product = scores.producer()
    assert product is not None and product.op_type == "MatMul"
    assert product.inputs[0] is scale.outputs[0]
    assert softmax.attributes["axis"].as_int() == -1


def test_transpose_of_k_is_merged_into_the_split_of_heads() -> None:
    model = attention_graph(7, 2, 16, 0)
    before = len(ops(model, "Transpose"))
    lower_attention(model)
    found = ops(model, "Transpose")
    assert len(found) == before
    assert [list(node.attributes["perm"].as_ints()) for node in found].count([0, 2, 3, 1]) == 1
    for node in found[:3]:
        assert node.inputs[0] is not None
        assert node.inputs[0].producer() in ops(model, "Reshape")


def test_a_k_that_others_use_keeps_its_own_transpose() -> None:
    text = ATTENTION.format(tokens=7, width=32, heads=2, size=16, scale=0.25).replace("(q, k, v)", "(q, k, k)")
    model = attention_graph(7, 2, 16, 0)
    weights = {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}
    model = parse(text, **weights)
    x = np.random.default_rng(0).standard_normal((2, 7, 32))
    expected = evaluate_in_double(model, x)
    lower_attention(model)
    np.testing.assert_allclose(evaluate_in_double(model, x), expected, rtol=1e-12, atol=1e-13)
    assert [0, 1, 3, 2] in [list(node.attributes["perm"].as_ints()) for node in ops(model, "Transpose")]


def test_a_graph_without_attention_is_left_alone() -> None:
    model = parse('<ir_version: 10, opset_import: ["" : 23]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    before = ir.to_proto(model)
    assert lower_attention(model) == 0
    assert ir.to_proto(model) == before


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("fields", [{"num_hidden_layers": 2}, {"hidden_size": 80, "num_attention_heads": 1}])
def test_lowered_vivit_computes_what_transformers_computes(checkpoints: Checkpoints, fields: dict[str, Any]) -> None:
    model, checkpoint = checkpoints.trace(**fields), checkpoints.load(**fields)
    assert lower_attention(model) == checkpoint.num_layers == len(ops(model, "Softmax"))
    assert not ops(model, "Attention")
    pixels = normal_pixels(checkpoint, 3)
    assert_as_hugging_face(run_ort(model, pixels), checkpoints.folder(**fields), pixels)


def test_every_tensor_of_the_pattern_is_typed_and_shaped(checkpoints: Checkpoints) -> None:
    model = checkpoints.trace()
    lower_attention(model)
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), check_type=True, strict_mode=True, data_prop=True)
    inferred = {v.name: v for v in proto.graph.value_info}
    tokens = checkpoints.load().anatomy.tokens
    shapes = {
        "Scale": [2, tokens, 16],
        "KeyTranspose": [2, 16, tokens],
        "QK": [2, tokens, tokens],
        "Softmax": [2, tokens, tokens],
        "PV": [2, tokens, 16],
    }
    for name, sides in shapes.items():
        (node,) = (n for n in model.graph if n.name == f"layers.0.attention/{name}")
        value = node.outputs[0]
        assert value.dtype == ir.DataType.FLOAT
        assert value.shape is not None and list(value.shape)[1:] == sides
        dims = inferred[str(value.name)].type.tensor_type.shape.dim
        assert [d.dim_value for d in dims[1:]] == sides

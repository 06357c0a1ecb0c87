"""Graphs in fp16 and bf16 widened to float32: the values of the weights stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from bundles import Bundles
from onnx import TensorProto, helper, numpy_helper

from vivit_export.runtime.session.widen import load_widened, widen_to_float32


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_nothing_narrow_is_left_but_stored_weights(bundles: Bundles, precision: str) -> None:
    model = load_widened(bundles.demo(precision=precision))
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

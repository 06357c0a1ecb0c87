"""The smallest graph that has a contract's input and outputs: the mean of the input, times a weight for each number."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vivit_export.contract import Contract, Tensor

_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


def tiny_graph(contract: Contract) -> bytes:
    """A graph that every reader accepts, a few hundred bytes and the same bytes each time."""
    (source,) = contract.io.inputs
    outputs = contract.io.outputs
    weights = [
        numpy_helper.from_array(np.array([1, 2, 3, 4], np.int64), "axes"),
        numpy_helper.from_array(np.array([1], np.int64), "last"),
        *(numpy_helper.from_array(np.ones((1, int(t.shape[1])), np.float32), f"w_{t.name}") for t in outputs),
    ]
    nodes = [
        helper.make_node("Cast", [source.name], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        *(helper.make_node("MatMul", ["column", f"w_{t.name}"], [t.name]) for t in outputs),
    ]
    graph = helper.make_graph(nodes, "tiny", [_value(source)], [_value(t) for t in outputs], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _value(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], tensor.shape)

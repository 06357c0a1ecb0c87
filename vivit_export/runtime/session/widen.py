"""Widen an fp16 or bf16 graph to float32, for CPUs that have no such arithmetic.

The weights keep their values, because every fp16 and bf16 number is a float32 number; only the roundings of
the activations disappear. Results are therefore closer to the fp32 model than those of an engine that
computes in the narrow type, and the session's ``details`` say so.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vivit_export.bundle import Bundle
from vivit_export.runtime.session.external_weights import load_graph

_NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_LARGE = 1 << 16  # elements


def load_widened(bundle: Bundle) -> onnx.ModelProto:
    """Load a bundle's graph, and widen its narrow types; weights in other files are not loaded.

    Raises:
        BundleError: the graph was altered.
    """
    model = load_graph(bundle)
    if bundle.precision.rounds:
        widen_to_float32(model)
    return model


def widen_to_float32(model: onnx.ModelProto) -> int:
    """Make every fp16 and bf16 tensor of the graph float32, in place.

    Large weights, and those in external files, stay as they are: a Cast follows each, which the
    engine evaluates once, when it loads the graph. Casts to a narrow type become casts to float32,
    which do nothing.

    Args:
        model: loaded with or without its external data.

    Returns:
        Number of weights widened.
    """
    graph = model.graph
    weights = [tensor for tensor in graph.initializer if tensor.data_type in _NARROW]
    large = [tensor for tensor in weights if _is_large(tensor)]
    for tensor in weights:
        if not _is_large(tensor):
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for node in graph.node:
        _retarget(node)
    casts = [_cast_of(tensor) for tensor in large]
    nodes = [*casts, *graph.node]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return len(weights)


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) > _LARGE


def _retarget(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _NARROW:
            attribute.i = TensorProto.FLOAT


def _cast_of(tensor: onnx.TensorProto) -> onnx.NodeProto:
    """Rename a weight and return the Cast that makes a float32 one of the old name."""
    name, tensor.name = tensor.name, f"{tensor.name}/narrow"
    return helper.make_node("Cast", [tensor.name], [name], name=f"{name}/Widen", to=TensorProto.FLOAT)

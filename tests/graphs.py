"""Run and read graphs in tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

Array = npt.NDArray[Any]


def run_ort(model: ir.Model, feed: Array) -> dict[str, Array]:
    """Run a graph of one input in ONNX Runtime, with its default optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: feed}), strict=True))


def serialize(model: ir.Model) -> bytes:
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


def parse(text: str, **weights: Array) -> ir.Model:
    """Read ONNX's textual form; ``weights`` become initializers under their names."""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    for i, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type.lower()}{i}/{node.op_type}"
    return model


def ops(model: ir.Model, kind: str) -> list[ir.Node]:
    """All nodes of one kind, in order."""
    return [node for node in model.graph if node.op_type == kind]


def inferred_types(model: ir.Model) -> dict[str, np.dtype[Any]]:
    """Element type of every tensor as ONNX's own strict inference derives it from inputs, weights and ops alone."""
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.ClearField("type")
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    types = {value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in values}
    weights = {w.name: onnx.helper.tensor_dtype_to_np_dtype(w.data_type) for w in inferred.initializer}
    return {**types, **weights}

"""Run and read graphs in tests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = npt.NDArray[Any]


def run_ort(model: ir.Model, feed: Array) -> dict[str, Array]:
    """Run a graph of one input in ONNX Runtime, with its default optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")  # else INT8 saturates on some processors
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


class _Attention(OpRun):
    """ONNX's own evaluator takes the root of the scale in float32."""

    op_domain = ""

    def _run(
        self, q: Array, k: Array, v: Array, mask: Array | None = None, *, scale: float, softcap: float = 0, **_: Any
    ) -> tuple[Array]:
        scores = scale * np.einsum("bhik,bhjk->bhij", q, k) + (0 if mask is None else mask)
        scores = softcap * np.tanh(scores / softcap) if softcap else scores
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return (np.einsum("bhij,bhjk->bhik", weights / weights.sum(axis=-1, keepdims=True), v),)


_Attention.__name__ = "Attention"


class _Gelu(OpRun):
    """ONNX's own evaluator has constants in float32."""

    op_domain = ""

    def _run(self, x: Array, *, approximate: bytes | str | None = None) -> tuple[Array]:
        if approximate in (b"tanh", "tanh"):
            return (x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),)
        return (x / 2 * (1 + np.vectorize(math.erf)(x / 2**0.5)),)


_Gelu.__name__ = "Gelu"


def to_double(model: ir.Model) -> ir.Model:
    """Make a float64 copy of the graph as it would be read from a file: weights, inputs, everything between."""
    model = ir.from_proto(ir.to_proto(model))
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for value in [*values, *(v for node in model.graph for v in node.outputs)]:
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.DOUBLE)
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float64), name=value.name)
    for node in ops(model, "Cast"):
        if node.attributes["to"].as_int() == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.DOUBLE)
    return model


def run_double(model: ir.Model, *feeds: Array) -> dict[str, npt.NDArray[np.float64]]:
    """Run a float64 graph in ONNX's reference evaluator."""
    evaluator = ReferenceEvaluator(ir.to_proto(model), new_ops=[_Attention, _Gelu])
    names = [str(v.name) for v in model.graph.outputs]
    results = [np.asarray(a) for a in evaluator.run(None, dict(zip(evaluator.input_names, feeds, strict=True)))]
    assert all(array.dtype == np.float64 for array in results)
    return dict(zip(names, results, strict=True))

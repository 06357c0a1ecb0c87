"""A plan as an ONNX file, to view in Netron: one node per layer, named as in the plan.

It cannot be run. Nodes belong to the domain ``vivit_export.plan``. Their op type is the layer's role
(`Layer.role`), and attributes hold the rest: the compiler's kind and tactic, the type it computes in,
the ONNX nodes it executes, and its tensors as this layer sees them, because a plan reads one tensor
under several shapes. Weights are listed, not stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, ValueInfoProto, helper

from vivit_export.export.engine.layers import Layer, PlanTensor
from vivit_export.files import writing_file

DOMAIN = "vivit_export.plan"
_ELEMENTS = {
    "Half": TensorProto.FLOAT16,
    "BFloat16": TensorProto.BFLOAT16,
    "Float": TensorProto.FLOAT,
    "Int8": TensorProto.INT8,
    "UInt8": TensorProto.UINT8,
    "FP8": TensorProto.FLOAT8E4M3FN,
    "Int32": TensorProto.INT32,
    "Int64": TensorProto.INT64,
    "Bool": TensorProto.BOOL,
}


def plan_to_onnx(layers: Iterable[Layer], name: str) -> onnx.ModelProto:
    """Draw a plan as an ONNX graph that the checker accepts.

    Args:
        layers: in order of execution.
        name: name of the graph.
    """
    drawing = _Drawing()
    nodes = [drawing.node(layer) for layer in layers]
    graph = helper.make_graph(nodes, name, drawing.inputs, drawing.results(), value_info=drawing.between())
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="vivit-export")


def write_plan_onnx(layers: Iterable[Layer], name: str, path: Path, *, force: bool = False) -> None:
    """Write the drawing to a temporary file and rename it to ``path``.

    Raises:
        OutputError: see `vivit_export.files.writing_file`.
    """
    with writing_file(path, force=force) as part:
        part.write_bytes(plan_to_onnx(layers, name).SerializeToString(deterministic=True))


class _Drawing:
    """Turn tensor names of a plan, which may be written more than once, into edges that are written once."""

    def __init__(self) -> None:
        self.inputs: list[ValueInfoProto] = []
        self._edges: dict[str, str] = {}  # tensor of the plan: the edge that holds it now
        self._values: dict[str, ValueInfoProto] = {}
        self._read: set[str] = set()
        self._names: set[str] = set()
        self._marked: Counter[str] = Counter()

    def node(self, layer: Layer) -> onnx.NodeProto:
        """Draw one layer."""
        inputs = list(dict.fromkeys(self._reading(t) for t in layer.inputs))
        outputs = [self._writing(t) for t in layer.outputs]
        if layer.role == "host":
            self._read.update(outputs)  # shapes that kernels get by other ways than tensors
        details: dict[str, Any] = {
            "kind": layer.kind,
            "tactic": layer.tactic,
            "compute_dtype": layer.dtype if layer.role in ("attention", "gemm", "product") else "",
            "onnx_nodes": list(layer.nodes),
            "plan_inputs": [str(t) for t in layer.inputs],
            "plan_constants": [str(t) for t in layer.constants],
            "plan_outputs": [str(t) for t in layer.outputs],
        }
        told = {key: value for key, value in details.items() if value}
        # ONNX wants an output of every node; a stream event has none.
        name = self._free(layer.name)
        return helper.make_node(layer.role, inputs, outputs or [f"{name}.done"], name=name, domain=DOMAIN, **told)

    def results(self) -> list[ValueInfoProto]:
        """Return the tensors that are written and never read."""
        return [value for edge, value in self._values.items() if edge not in self._read]

    def between(self) -> list[ValueInfoProto]:
        """Return the tensors that are written and read."""
        return [value for edge, value in self._values.items() if edge in self._read]

    def _reading(self, tensor: PlanTensor) -> str:
        if tensor.name not in self._edges:
            self._edges[tensor.name] = edge = self._free(tensor.name)
            self.inputs.append(_value(edge, tensor))
        edge = self._edges[tensor.name]
        self._read.add(edge)
        return edge

    def _writing(self, tensor: PlanTensor) -> str:
        self._edges[tensor.name] = edge = self._free(tensor.name)
        self._values[edge] = _value(edge, tensor)
        return edge

    def _free(self, name: str) -> str:
        """Return the name, or if it is taken, with a mark and, from the second time, a number."""
        free = name
        while free in self._names:
            self._marked[name] += 1
            free = f"{name}'{self._marked[name] if self._marked[name] > 1 else ''}"
        self._names.add(free)
        return free


def _value(name: str, tensor: PlanTensor) -> ValueInfoProto:
    element = _ELEMENTS.get(tensor.dtype, TensorProto.UNDEFINED)
    shape = [d if d >= 0 else "dynamic" for d in tensor.dims]
    return helper.make_tensor_value_info(name, element, shape, doc_string=str(tensor))

"""Make nodes and constants, and read constants: the one way in which the graph room does, rewrites or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

Float64 = npt.NDArray[np.float64]


class TypedTape(Tape):
    """Nodes in a line, not in a graph yet; each has one name, and its output is named after it and typed."""

    def add(
        self,
        op_type: str,
        inputs: list[ir.Value],
        name: str,
        dtype: ir.DataType | None,
        shape: ir.Shape | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Record a node of one output; return that."""
        return self.op(op_type, inputs, attributes, name=name, output=_output(name, 0, dtype, shape))

    def add_many(
        self, op_type: str, inputs: list[ir.Value], name: str, dtype: ir.DataType, count: int, **attributes: Any
    ) -> list[ir.Value]:
        """Record a node of several outputs, whose shapes are left open; return them."""
        outputs = [_output(name, i, dtype, None) for i in range(count)]
        return list(self.op_multi_out(op_type, inputs, attributes, name=name, outputs=outputs))

    def insert_before(self, node: ir.Node) -> None:
        """Put what was recorded in front of a node."""
        graph_of(node).insert_before(node, self.nodes)

    def insert_after(self, node: ir.Node) -> None:
        """Put what was recorded behind a node."""
        graph_of(node).insert_after(node, self.nodes)


def _output(name: str, index: int, dtype: ir.DataType | None, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=f"{name}_out{index or ''}", type=None if dtype is None else ir.TensorType(dtype), shape=shape)


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that a node is in."""
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def module_path(node: ir.Node) -> str:
    """Path of the module that a node was traced from; nodes are named ``PATH/OP``."""
    return str(node.name).rpartition("/")[0]


def array_of(value: ir.Value | None) -> npt.NDArray[Any]:
    """A constant, in its own dtype."""
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def double_of(value: ir.Value | None) -> Float64:
    """A constant in float64."""
    return array_of(value).astype(np.float64)


def new_constant(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """Register an initializer under a name that is still free."""
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(np.array(array, order="C"), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_constant(node: ir.Node, index: int, array: npt.NDArray[Any]) -> None:
    """Give ``node`` a constant of its own in the dtype of the one it had; the old one stays for others."""
    old = node.inputs[index]
    assert old is not None
    values = array.astype(array_of(old).dtype, order="C")
    if len(tuple(old.uses())) == 1:
        old.const_value, old.shape = ir.tensor(values, name=old.name), ir.Shape(values.shape)
        return
    node.replace_input_with(index, new_constant(graph_of(node), f"{node.name}.{index}", values))

"""Make nodes and constants, and read constants; everything under ``export/graph`` uses these functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

Float64 = npt.NDArray[np.float64]


class TypedTape(Tape):
    """Nodes in order, not yet in a graph; each has a name, and a typed output named after it."""

    def add(
        self,
        op_type: str,
        inputs: list[ir.Value],
        name: str,
        dtype: ir.DataType | None,
        shape: ir.Shape | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Record a node with one output; return the output."""
        return self.op(op_type, inputs, attributes, name=name, output=_output(name, 0, dtype, shape))

    def add_many(
        self, op_type: str, inputs: list[ir.Value], name: str, dtype: ir.DataType, count: int, **attributes: Any
    ) -> list[ir.Value]:
        """Record a node with several outputs of unknown shape; return the outputs."""
        outputs = [_output(name, i, dtype, None) for i in range(count)]
        return list(self.op_multi_out(op_type, inputs, attributes, name=name, outputs=outputs))

    def insert_before(self, node: ir.Node) -> None:
        """Insert the recorded nodes before a node."""
        graph_of(node).insert_before(node, self.nodes)

    def insert_after(self, node: ir.Node) -> None:
        """Insert the recorded nodes after a node."""
        graph_of(node).insert_after(node, self.nodes)


def _output(name: str, index: int, dtype: ir.DataType | None, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=f"{name}_out{index or ''}", type=None if dtype is None else ir.TensorType(dtype), shape=shape)


def graph_of(node: ir.Node) -> ir.Graph:
    """Return the graph that a node is in."""
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def module_path(node: ir.Node) -> str:
    """Return the path of the module that a node was traced from; nodes are named ``PATH/OP``."""
    return str(node.name).rpartition("/")[0]


def has_one_reader(value: ir.Value) -> bool:
    """Return whether one node reads a value, and nothing outside the graph does."""
    return len(tuple(value.uses())) == 1 and not value.is_graph_output()


def array_of(value: ir.Value | None) -> npt.NDArray[Any]:
    """Return a constant in its own dtype."""
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def double_of(value: ir.Value | None) -> Float64:
    """Return a constant in float64."""
    return array_of(value).astype(np.float64)


def new_constant(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """Register an initializer under a free name."""
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(np.array(array, order="C"), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_constant(node: ir.Node, index: int, array: npt.NDArray[Any]) -> None:
    """Give ``node`` a constant of its own, in the dtype of the old one; other readers keep the old one."""
    old = node.inputs[index]
    assert old is not None
    values = array.astype(array_of(old).dtype, order="C")
    if len(tuple(old.uses())) == 1:
        old.const_value, old.shape = ir.tensor(values, name=old.name), ir.Shape(values.shape)
        return
    node.replace_input_with(index, new_constant(graph_of(node), f"{node.name}.{index}", values))

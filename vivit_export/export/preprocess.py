"""Put the pixel arithmetic in front of the graph, so that a bundle takes uint8 crops.

An 8-bit pixel has 256 values per channel, so the processor's rescale, offset and normalise are a
table. In the graph they are a few float32 ops where those give the table's very bits for all 256
values (checked here, for every checkpoint), and a Gather on the table itself otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vivit_export.contract import Clip, Preprocess

Float32 = npt.NDArray[np.float32]
Step = tuple[str, Float32]


def prepend_crops(model: ir.Model, clip: Clip, preprocess: Preprocess, table: Float32) -> str:
    """Replace the float input ``pixel_values`` by uint8 ``frames`` (batch, T, H, W, 3).

    Args:
        model: changed in place.
        clip: geometry of the new input.
        preprocess: whose arithmetic is added.
        table: float32 (3, 256): the value the processor gives each 8-bit level, per channel.

    Returns:
        ``arithmetic`` or ``table``: the form that was used. Both are exact in float32.
    """
    graph = model.graph
    pixels = graph.inputs[0]
    batch = pixels.shape[0] if pixels.shape is not None else None
    shape = ir.Shape([batch, clip.num_frames, clip.height, clip.width, 3])
    frames = ir.Value(name="frames", type=ir.TensorType(ir.DataType.UINT8), shape=shape)
    steps = exact_steps(preprocess, table)
    nodes = _arithmetic(graph, frames, steps) if steps is not None else _lookup(graph, frames, table)
    nodes.append(_node("Transpose", [nodes[-1].outputs[0]], "Transpose", pixels.shape, perm=(0, 1, 4, 2, 3)))
    ir.convenience.replace_all_uses_with(pixels, nodes[-1].outputs[0])
    first = graph[0]
    for node in nodes:
        graph.insert_before(first, node)
    graph.inputs[0] = frames
    return "arithmetic" if steps is not None else "table"


def exact_steps(preprocess: Preprocess, table: Float32) -> list[Step] | None:
    """Float32 ops that map levels 0..255 to exactly ``table``, or None where there are none.

    NumPy rescales in float64 and rounds once; dividing by the float32 reciprocal gives the same
    bits for 1/127.5 and 1/255, multiplying by the factor does not. Both are tried.
    """
    tail: list[Step] = []
    if preprocess.offset:
        tail.append(("Sub", _f32(1.0)))
    if preprocess.do_normalize:
        tail += [("Sub", _f32(*preprocess.mean)), ("Div", _f32(*preprocess.std))]
    heads: list[list[Step]] = [[]]
    if preprocess.do_rescale:
        factor = preprocess.rescale_factor
        heads = [[("Mul", _f32(factor))]]
        if factor:
            heads.insert(0, [("Div", _f32(1 / factor))])
    for head in heads:
        if np.array_equal(_evaluate([*head, *tail]), table):
            return [*head, *tail]
    return None


def _f32(*values: float) -> Float32:
    return np.array(values, np.float32)


def _evaluate(steps: Sequence[Step]) -> Float32:
    levels = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)
    functions = {"Mul": np.multiply, "Div": np.divide, "Sub": np.subtract}
    for op, operand in steps:
        levels = functions[op](levels, operand, dtype=np.float32)
    return levels.T


def _arithmetic(graph: ir.Graph, frames: ir.Value, steps: Sequence[Step]) -> list[ir.Node]:
    nodes = [_node("Cast", [frames], "Cast", frames.shape, to=ir.DataType.FLOAT)]
    for i, (op, operand) in enumerate(steps):
        flat = operand[:1].reshape(()) if np.all(operand == operand[0]) else operand
        constant = _constant(graph, f"preprocess.{op.lower()}{i}", flat, ir.DataType.FLOAT)
        nodes.append(_node(op, [nodes[-1].outputs[0], constant], f"{op}{i}", frames.shape))
    return nodes


def _lookup(graph: ir.Graph, frames: ir.Value, table: Float32) -> list[ir.Node]:
    values = _constant(graph, "preprocess.table", table.reshape(-1), ir.DataType.FLOAT)
    starts = _constant(graph, "preprocess.channels", np.array([0, 256, 512], np.int32), ir.DataType.INT32)
    levels = _node("Cast", [frames], "Cast", frames.shape, ir.DataType.INT32, to=ir.DataType.INT32)
    index = _node("Add", [levels.outputs[0], starts], "Index", frames.shape, ir.DataType.INT32)
    return [levels, index, _node("Gather", [values, index.outputs[0]], "Gather", frames.shape, axis=0)]


def _node(
    op: str,
    inputs: Sequence[ir.Value],
    name: str,
    shape: ir.Shape | None,
    dtype: ir.DataType = ir.DataType.FLOAT,
    **attributes: int | Sequence[int],
) -> ir.Node:
    node = ir.node(op, inputs, attributes=attributes, name=f"preprocess/{name}")
    out = node.outputs[0]
    out.name, out.dtype, out.shape = f"preprocess/{name}_out", dtype, shape
    return node


def _constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic], dtype: ir.DataType) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value

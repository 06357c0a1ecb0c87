"""Turn the float32 graph into a strongly typed fp16 or bf16 one.

TensorRT 11 has no precision flags: a tensor has the type that the graph says. Here every weight,
GEMM, GELU and residual becomes ``dtype``, with these exceptions:

- LayerNormalization stays one op with ``stash_type=1``, so its statistics are float32 (with fp16
  accumulation the variance overflows from sigma 9 on at 768 channels);
- Softmax runs in float32 between two casts, as eager Hugging Face attention does, and so does a mean: the sum of 1568
  tokens would leave the range of fp16;
- in bf16, a Pad runs in float32 between two casts, which change nothing: ONNX Runtime's CUDA engine has no such kernel
  for bfloat16 (1.29 to 1.31), and compiled plans have the same kernels with them;
- nodes that the user names keep their float32 weights and results (`keeping`), with a cast where the type changes;
- inputs, logits and embedding stay float32.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vivit_export.errors import BuildError, option
from vivit_export.export.graph.rewrites.nodes import TypedTape, new_constant
from vivit_export.precision import Precision


@dataclass(frozen=True, slots=True)
class Lowered:
    """What a conversion changed.

    Attributes:
        precision: the type, fp16 or bf16.
        num_weights: tensors converted.
        largest_weight: name and magnitude of the largest value among them.
        subnormal: share of the nonzero values that are below the type's normal range and lose bits there.
        float32_ops: names of the nodes that still compute in float32, those kept at the user's request included.
    """

    precision: Precision
    num_weights: int
    largest_weight: tuple[str, float]
    subnormal: float
    float32_ops: tuple[str, ...]


def lower_precision(
    model: ir.Model, precision: Precision, *, float_inputs: bool = True, keep: Collection[str] = ()
) -> Lowered:
    """Convert the graph in place; see the module's rules.

    Args:
        model: float32 graph with float32 inputs and outputs.
        precision: the type, fp16 or bf16.
        float_inputs: False converts the inputs too, for a caller who puts ops before them.
        keep: names of nodes that stay in float32.

    Raises:
        BuildError: a weight is outside the finite range of the type.
    """
    low, graph = precision.dtype, model.graph
    named = set(keep)
    in_float32 = {"Softmax", "ReduceMean", *(["Pad"] if precision is Precision.BF16 else [])}
    wide = {node for node in graph if node.op_type in in_float32 or node.name in named}
    _share_out_weights(graph, wide)
    num_weights, largest, subnormal = _convert_weights(graph, precision, wide)
    for node in graph:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT and node not in wide:
                retype(value, low)
    if not float_inputs:
        for value in graph.inputs:
            retype(value, low)
    _cast_where_types_change(graph, low, wide)
    _cast_outputs(graph, low)
    islands = tuple(str(node.name) for node in graph if node in wide)
    return Lowered(precision, num_weights, largest, subnormal, islands)


def cast(tape: TypedTape, value: ir.Value, to: ir.DataType, name: str) -> ir.Value:
    """Record a ``Cast``."""
    return tape.add("Cast", [value], name, to, value.shape, to=to)


def retype(value: ir.Value, to: ir.DataType) -> None:
    """Set the type of ``value`` alone: clones share type objects, so setting ``dtype`` would change them too."""
    value.type = ir.TensorType(to)


def _share_out_weights(graph: ir.Graph, wide: Collection[ir.Node]) -> None:
    """Give nodes that stay in float32 constants of their own where others read them too."""
    for value in list(graph.initializers.values()):
        readers = [(use.node, use.idx) for use in value.uses()]
        inside = [(node, index) for node, index in readers if node in wide]
        if value.dtype != ir.DataType.FLOAT or value.const_value is None or len(inside) in (0, len(readers)):
            continue
        own = new_constant(graph, f"{value.name}.float32", value.const_value.numpy())
        for node, index in inside:
            node.replace_input_with(index, own)


def _convert_weights(
    graph: ir.Graph, precision: Precision, wide: Collection[ir.Node]
) -> tuple[int, tuple[str, float], float]:
    low = precision.dtype
    limit, smallest_normal = float(low.max), float(low.tiny)
    largest, count, values, subnormal = ("", 0.0), 0, 0, 0
    for name, value in graph.initializers.items():
        if value.dtype != ir.DataType.FLOAT or value.const_value is None or _only_for(value, wide):
            continue
        array = value.const_value.numpy()
        magnitudes = np.abs(array)
        peak = float(magnitudes.max(initial=0.0))
        if peak > limit:
            raise BuildError(
                f"weight {name} reaches {peak:.4g}, beyond the {precision} range of {limit:.4g}; "
                f"use {option('precision', precision.wider)}"
            )
        if peak > largest[1]:
            largest = (name, peak)
        value.const_value = ir.tensor(array.astype(low.numpy()), dtype=low, name=name)
        retype(value, low)
        count += 1
        values += int(np.count_nonzero(array))
        subnormal += int(np.count_nonzero((magnitudes > 0) & (magnitudes < smallest_normal)))
    return count, largest, subnormal / max(values, 1)


def _only_for(value: ir.Value, wide: Collection[ir.Node]) -> bool:
    uses = tuple(value.uses())
    return bool(uses) and all(use.node in wide for use in uses)


def _cast_where_types_change(graph: ir.Graph, low: ir.DataType, wide: Collection[ir.Node]) -> None:
    """Cast each value once for all readers of the other type: up before the first reader, down after the producer."""
    for node in list(graph):
        wanted = ir.DataType.FLOAT if node in wide else low
        for value in dict.fromkeys(node.inputs):
            if value is None or value.const_value is not None or value.dtype == wanted:
                continue
            if value.dtype in (ir.DataType.FLOAT, low):
                _cast_for_readers(graph, value, wanted, node, wide)


def _cast_for_readers(
    graph: ir.Graph, value: ir.Value, wanted: ir.DataType, first: ir.Node, wide: Collection[ir.Node]
) -> None:
    readers = [(use.node, use.idx) for use in value.uses() if (use.node in wide) == (first in wide)]
    producer, tape = value.producer(), TypedTape()
    up = wanted == ir.DataType.FLOAT
    if up:
        index = [*first.inputs].index(value)
        name = f"{first.name}/CastUp{f'_{index + 1}' if index else ''}"
    else:
        name = f"{value.name}/Cast" if producer is None else f"{producer.name}/CastDown"
    converted = cast(tape, value, wanted, name)
    for node, index in readers:
        node.replace_input_with(index, converted)
    if up:
        tape.insert_before(first)
    elif producer is None:
        tape.insert_before(graph[0])
    else:
        tape.insert_after(producer)


def _cast_outputs(graph: ir.Graph, low: ir.DataType) -> None:
    for i, value in enumerate(list(graph.outputs)):
        if value.dtype != low:
            continue
        tape = TypedTape()
        out = cast(tape, value, ir.DataType.FLOAT, f"{value.name}/Cast")
        name, value.name = value.name, f"{value.name}_{low.name.lower()}"
        out.name = name
        graph.extend(tape.nodes)
        graph.outputs[i] = out

"""Turn the float32 graph into a strongly typed fp16 or bf16 one.

TensorRT 11 has no precision flags: a tensor has the type that the graph says. Here every weight,
GEMM, GELU and residual becomes ``dtype``, with these exceptions:

- LayerNormalization stays one op with ``stash_type=1``, so its statistics are float32 (with fp16
  accumulation the variance overflows from sigma 9 on at 768 channels);
- Softmax runs in float32 between two casts, as eager Hugging Face attention does;
- inputs, logits and embedding stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vivit_export.errors import BuildError, option
from vivit_export.export.graph.rewrites.nodes import TypedTape
from vivit_export.precision import Precision


@dataclass(frozen=True, slots=True)
class Lowered:
    """What a conversion changed.

    Attributes:
        precision: the type, fp16 or bf16.
        num_weights: tensors converted.
        largest_weight: name and magnitude of the largest value among them.
        subnormal: share of the nonzero values that are below the type's normal range and lose bits there.
        float32_ops: names of the nodes that still compute in float32.
    """

    precision: Precision
    num_weights: int
    largest_weight: tuple[str, float]
    subnormal: float
    float32_ops: tuple[str, ...]


def lower_precision(model: ir.Model, precision: Precision, *, float_inputs: bool = True) -> Lowered:
    """Convert the graph in place; see the module's rules.

    Args:
        model: float32 graph with float32 inputs and outputs.
        precision: the type, fp16 or bf16.
        float_inputs: False converts the inputs too, for a caller who puts ops before them.

    Raises:
        BuildError: a weight is outside the finite range of the type.
    """
    low, graph = precision.dtype, model.graph
    num_weights, largest, subnormal = _convert_weights(graph, precision)
    for node in graph:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                retype(value, low)
    if float_inputs:
        _cast_inputs(graph, low)
    else:
        for value in graph.inputs:
            retype(value, low)
    islands = _float32_softmax(graph, low)
    _cast_outputs(graph, low)
    return Lowered(precision, num_weights, largest, subnormal, tuple(islands))


def cast(tape: TypedTape, value: ir.Value, to: ir.DataType, name: str) -> ir.Value:
    """Record a ``Cast``."""
    return tape.add("Cast", [value], name, to, value.shape, to=to)


def retype(value: ir.Value, to: ir.DataType) -> None:
    """Set the type of ``value`` alone: clones share type objects, so setting ``dtype`` would change them too."""
    value.type = ir.TensorType(to)


def _convert_weights(graph: ir.Graph, precision: Precision) -> tuple[int, tuple[str, float], float]:
    low = precision.dtype
    limit, smallest_normal = float(low.max), float(low.tiny)
    largest, count, values, subnormal = ("", 0.0), 0, 0, 0
    for name, value in graph.initializers.items():
        if value.dtype != ir.DataType.FLOAT or value.const_value is None:
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


def _cast_inputs(graph: ir.Graph, low: ir.DataType) -> None:
    for value in graph.inputs:
        if value.dtype != ir.DataType.FLOAT:
            continue
        tape = TypedTape()
        ir.convenience.replace_all_uses_with(value, cast(tape, value, low, f"{value.name}/Cast"))
        tape.nodes[0].replace_input_with(0, value)
        tape.insert_before(graph[0])


def _float32_softmax(graph: ir.Graph, low: ir.DataType) -> list[str]:
    islands = []
    for node in [n for n in graph if n.op_type == "Softmax"]:
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None
        up, down = TypedTape(), TypedTape()
        node.replace_input_with(0, cast(up, source, ir.DataType.FLOAT, f"{node.name}/CastUp"))
        up.insert_before(node)
        retype(result, ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(result, cast(down, result, low, f"{node.name}/CastDown"))
        down.nodes[0].replace_input_with(0, result)
        down.insert_after(node)
        islands.append(str(node.name))
    return islands


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

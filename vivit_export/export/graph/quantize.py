"""Quantize the encoder's Linears: Q/DQ nodes with scales from `vivit_export.calibration`.

For each layer (`calibration.linears.LinearGroup`: Q, K and V together, the output projection, fc1, fc2)::

    x -> [Mul 2^-k] -> QuantizeLinear -> DequantizeLinear --\
                                     codes -> Dequantize --> MatMul -> Add -> ...

The graph stays strongly typed: scales have the floating-point type around them, the zero point is
zero, and weights are stored as codes. Attention (but see `quantize_attention`), LayerNormalization, GELU, the
patch embedding and the head do not change.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vivit_export.anatomy import Anatomy
from vivit_export.bundle.manifest import QuantizedLayer, Smoothing
from vivit_export.calibration.linears import LinearGroup, fp16_scale, quantize_weights
from vivit_export.calibration.ranges import LayerRange, Ranges
from vivit_export.errors import CalibrationError, option
from vivit_export.export.graph.rewrites.nodes import TypedTape, array_of, module_path, new_constant, replace_constant
from vivit_export.precision import Precision

_QKV = "qkv"
_PARTS = frozenset({"Slice", "Gather"})


@dataclass(frozen=True)
class Place:
    """A layer in a graph.

    Attributes:
        group: its name, its weights, and how it can be smoothed.
        matmuls: its products.
        source: the value that they read.
        bias: the Add after its only product, and which input of that is the bias; None: there is none.
    """

    group: LinearGroup
    matmuls: tuple[ir.Node, ...]
    source: ir.Value
    bias: tuple[ir.Node, int] | None


def find_groups(model: ir.Model, anatomy: Anatomy) -> list[Place]:
    """Find the Linears of the encoder's blocks in graph order; those that share an input form one layer."""
    by_source: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph:
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is not None and weight.const_value is not None and anatomy.in_block(str(node.name)):
            by_source.setdefault(_whole(node.inputs[0]), []).append(node)
    return [_place(source, tuple(nodes)) for source, nodes in by_source.items()]


def _whole(value: ir.Value | None) -> ir.Value:
    """Return the tensor of all tokens, of which the last block's queries are a slice (see `rewrites.class_token`)."""
    assert value is not None
    producer = value.producer()
    source = producer.inputs[0] if producer is not None and producer.op_type in _PARTS else None
    return value if source is None else source


def name_inputs(model: ir.Model, anatomy: Anatomy) -> list[LinearGroup]:
    """Name the inputs of all layers after them, so that messages and caches can name them; return the layers."""
    places = find_groups(model, anatomy)
    for place in places:
        place.source.name = place.group.tensor
    return [place.group for place in places]


def _place(source: ir.Value, nodes: tuple[ir.Node, ...]) -> Place:
    paths = tuple(module_path(node) for node in nodes)
    name = paths[0] if len(paths) == 1 else f"{paths[0].rpartition('.')[0]}.{_QKV}"
    weights = tuple(array_of(node.inputs[1]) for node in nodes)
    bias = _bias(nodes[0]) if len(nodes) == 1 else None
    group = LinearGroup(name, f"{name}.input", paths, weights, _smoothing(source, nodes), bias is not None)
    return Place(group, nodes, source, bias)


def _bias(matmul: ir.Node) -> tuple[ir.Node, int] | None:
    """Return the Add of a constant vector, if it is the only reader of a product."""
    product = matmul.outputs[0]
    uses = tuple(product.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add" or product.is_graph_output():
        return None
    index = 1 - uses[0].idx
    value = uses[0].node.inputs[index]
    constant = value.const_value if value is not None else None
    return (uses[0].node, index) if constant is not None and len(constant.shape) == 1 else None


def _smoothing(source: ir.Value, nodes: tuple[ir.Node, ...]) -> str:
    """Return how to divide ``source`` by channel: in LayerNormalization's affine part, or by a Mul after a GELU."""
    producer = source.producer()
    readers = {use.node for use in source.uses()}
    known = {*nodes, *(node.inputs[0].producer() for node in nodes if node.inputs[0] is not None)}
    if producer is None or not readers <= known or source.is_graph_output():
        return "none"
    if producer.op_type == "LayerNormalization":
        return "free"
    return "mul" if producer.op_type != "Reshape" else "none"  # after attention, `equalize` has done it


def quantize(
    model: ir.Model, anatomy: Anatomy, ranges: Ranges, keep: Collection[str] = ()
) -> dict[str, QuantizedLayer]:
    """Quantize in place.

    Args:
        model: float32 graph, rewritten as it was for the calibration; afterward it is lowered to fp16.
        anatomy: of the network.
        ranges: ranges of all layers to quantize.
        keep: names of layers to leave as they are.

    Returns:
        For the manifest: how each layer is quantized, or that it is not.

    Raises:
        CalibrationError: a layer to quantize has no range, or one of the wrong size.
    """
    facts: dict[str, QuantizedLayer] = {}
    dead = [name for name in ranges.dead if name not in keep]
    if dead:
        raise CalibrationError(
            f"the input of {', '.join(dead)} is zero on all {ranges.clips.used} calibration clips, so it has no range; "
            f"check the weights in front of it, or leave it in fp16 with {option('keep_fp16', repr('|'.join(dead)))} "
            f"or {option('keep_fp16', 'auto')}"
        )
    for place in find_groups(model, anatomy):
        name = place.group.name
        if name in keep:
            facts[name] = QuantizedLayer(str(ranges.precision.base.dtype.numpy()), place.group.linears)
            continue
        if name not in ranges.layers:
            raise CalibrationError(f"the ranges say nothing about {name}; calibrate again")
        found = ranges.layers[name]
        _quantize_layer(model.graph, place, found, ranges.precision)
        facts[name] = QuantizedLayer(
            type=str(ranges.precision.dtype.numpy()),
            linears=place.group.linears,
            amax=found.amax,
            error=found.error,
            weight_percent=found.percent,
            bias_corrected=found.shift is not None,
            smoothing=None if found.alpha is None else Smoothing(found.alpha, place.group.smoothing),
        )
    RemoveUnusedNodesPass()(model)
    return facts


def _quantize_layer(graph: ir.Graph, place: Place, found: LayerRange, precision: Precision) -> None:
    group = place.group
    weights = group.weights
    source = place.source
    _check_sizes(group, found)
    if found.shift is not None and place.bias is not None:
        add, index = place.bias
        replace_constant(add, index, array_of(add.inputs[index]) + np.array(found.shift))
    if found.divisors is not None:
        factors = np.ldexp(np.float32(1), found.divisors).astype(np.float32)
        weights = tuple(weight * factors[:, None] for weight in weights)
        source = _divide(graph, place, factors)
    scale = new_constant(graph, f"{group.name}.input_scale", fp16_scale(found.amax, precision))
    zero = new_constant(graph, f"{group.name}.input_zero_point", np.zeros((), precision.dtype.numpy()))
    rounded: dict[ir.Value, ir.Value] = {}
    quantized = quantize_weights(group, precision, weights, found.percent)
    for matmul, weight in zip(place.matmuls, quantized, strict=True):
        path = module_path(matmul)
        read = matmul.inputs[0]
        assert read is not None
        if read not in rounded:
            where = group.name if read is place.source else path
            given = source if read is place.source else read
            rounded[read] = quantize_value(matmul, given, (scale, zero), where, precision)
        codes = new_constant(graph, f"{path}.codes", weight.codes)
        factor = new_constant(graph, f"{path}.scale", weight.scale)
        zeros = new_constant(graph, f"{path}.zero_point", np.zeros(weight.scale.shape, weight.codes.dtype))
        attributes = {"axis": 1} if weight.scale.ndim else {}
        tape, name, shape = TypedTape(), f"{path}/DequantizeWeight", codes.shape
        values = tape.add("DequantizeLinear", [codes, factor, zeros], name, ir.DataType.FLOAT, shape, **attributes)
        tape.insert_before(matmul)
        matmul.replace_input_with(0, rounded[read])
        matmul.replace_input_with(1, values)


def _check_sizes(group: LinearGroup, found: LayerRange) -> None:
    inputs, outputs = len(group.weights[0]), sum(weight.shape[1] for weight in group.weights)
    for what, values, size in (("exponents", found.exponents, inputs), ("shift", found.shift, outputs)):
        if values is not None and len(values) != size:
            raise CalibrationError(f"the ranges of {group.name} have {len(values)} {what} where {size} are needed")


def quantize_value(
    before: ir.Node, value: ir.Value, steps: tuple[ir.Value, ir.Value], path: str, precision: Precision
) -> ir.Value:
    """Quantize and dequantize a float32 value before a node; ``steps`` are its scale and zero point."""
    tape = TypedTape()
    codes = tape.add("QuantizeLinear", [value, *steps], f"{path}/Quantize", precision.dtype, value.shape)
    values = tape.add("DequantizeLinear", [codes, *steps], f"{path}/Dequantize", ir.DataType.FLOAT, value.shape)
    tape.insert_before(before)
    return values


def _divide(graph: ir.Graph, place: Place, factors: Any) -> ir.Value:
    """Divide the layer's input by channel; return the resulting value."""
    producer = place.source.producer()
    assert producer is not None
    if place.group.smoothing == "free":
        for index in (1, 2):
            replace_constant(producer, index, array_of(producer.inputs[index]) / factors)
        return place.source
    inverse = new_constant(graph, f"{place.group.name}.smoothing", (1 / factors).astype(np.float32))
    name = f"{place.group.name}/Smooth"
    tape = TypedTape()
    divided = tape.add("Mul", [place.source, inverse], name, ir.DataType.FLOAT, place.source.shape)
    tape.insert_before(place.matmuls[0])
    return divided

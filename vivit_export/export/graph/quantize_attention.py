"""Quantize attention itself to FP8: Q, K, V and the softmax, which is what TensorRT's FP8 attention kernel takes.

    Softmax(Q K^T) V   ->   DQ(Q8(Softmax(DQ(Q8(Q)) DQ(Q8(K))^T))) DQ(Q8(V))

All four tensors or none are quantized: without the softmax, no kernel fuses and the score matrix is written to
memory. The softmax is at most 1, so its scale is 1/448, known without calibration. Q, K and V of a block share
one range. E4M3 has an exponent of its own, so little is lost. With a scale for each, the compiler adds a kernel
per block to combine the products of their merged GEMM (148 kernels for ViViT-B/16x2 and SM89 instead of 136;
tensorrt-rtx 1.7.1).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vivit_export.bundle.manifest import QuantizedAttention
from vivit_export.calibration.linears import fp16_scale
from vivit_export.calibration.ranges import Ranges
from vivit_export.errors import CalibrationError, option
from vivit_export.export.graph.quantize import quantize_value
from vivit_export.export.graph.rewrites.nodes import module_path, new_constant
from vivit_export.precision import Precision

_CODES = Precision.FP8
_SOFTMAX_SCALE = np.array(np.float16(1 / float(_CODES.dtype.max)), np.float32)  # 1 becomes 448.1, which saturates
_HEADS = frozenset({"Transpose", "Reshape", "Slice"})  # between a projection and the attention that reads it


def name_attention_inputs(model: ir.Model) -> dict[str, tuple[str, ...]]:
    """Name Q, K and V, float32 (batch, tokens, channels), after their block.

    Precondition: before `rewrites.lower_attention`.

    Returns:
        The three names by the block's module path.
    """
    found = {}
    for node in model.graph:
        if node.op_type != "Attention":
            continue
        path = module_path(node)
        found[path] = tuple(f"{path}.{kind}" for kind in ("query", "key", "value"))
        for name, value in zip(found[path], node.inputs[:3], strict=True):
            _projected(value).name = name
    return found


def quantize_attention(model: ir.Model, ranges: Ranges) -> QuantizedAttention:
    """Quantize Q, K, V and the softmax of every block, in place.

    Precondition: float32, after `rewrites.lower_attention`.

    Returns:
        For the manifest: the ranges, and the softmax's scale.

    Raises:
        CalibrationError: the calibration did not observe attention, or observed only zeros.
    """
    graph = model.graph
    zero = new_constant(graph, "attention.zero_point", np.zeros((), _CODES.dtype.numpy()))
    softmax_scale = new_constant(graph, "attention.softmax_scale", _SOFTMAX_SCALE)
    for softmax in [node for node in graph if node.op_type == "Softmax"]:
        path = module_path(softmax)
        scores, context = softmax.inputs[0], softmax.outputs[0]
        assert scores is not None
        query_key, weighted = scores.producer(), next(iter(context.uses())).node
        assert query_key is not None
        scale = new_constant(graph, f"{path}.input_scale", fp16_scale(_amax(ranges, path), _CODES))
        steps = (scale, zero)
        for node, index, kind in ((query_key, 0, "query"), (query_key, 1, "key"), (weighted, 1, "value")):
            _quantize_input(node, index, steps, f"{path}.{kind}")
        _quantize_input(weighted, 0, (softmax_scale, zero), f"{path}.softmax")
    return QuantizedAttention(str(_CODES.dtype.numpy()), dict(ranges.attention), float(_SOFTMAX_SCALE))


def _amax(ranges: Ranges, path: str) -> float:
    if path not in ranges.attention:
        raise CalibrationError(
            f"the ranges say nothing about {path}: they were calibrated without "
            f"{option('fp8_attention')}; calibrate with it"
        )
    if not ranges.attention[path]:
        raise CalibrationError(
            f"Q, K and V of {path} are zero on all {ranges.clips.used} calibration clips, so they have no range; "
            f"leave out {option('fp8_attention')}, or check the weights in front of them"
        )
    return ranges.attention[path]


def _quantize_input(node: ir.Node, index: int, steps: tuple[ir.Value, ir.Value], path: str) -> None:
    value = node.inputs[index]
    assert value is not None
    node.replace_input_with(index, quantize_value(node, value, steps, path, _CODES))


def _projected(value: ir.Value | None) -> ir.Value:
    """Return the value that the heads were split from."""
    while value is not None and (producer := value.producer()) is not None and producer.op_type in _HEADS:
        value = producer.inputs[0]
    assert value is not None
    return value

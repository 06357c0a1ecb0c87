r"""Rewrite quantized products for ONNX Runtime on the CPU: one integer GEMM each.

::

    QuantizeLinear -> DequantizeLinear -\
                codes -> DequantizeLinear --> MatMul -> Add bias

    becomes   QuantizeLinear -> MatMulIntegerToFloat(codes, scales, bias)   of the domain com.microsoft

The function is the same: the integer sums are exact and are scaled once. ONNX Runtime does this by itself
only if a single product reads the tensor, and would multiply Q, K and V in float32 (1.32).

Activations become unsigned, with a zero point of 128 for the same 256 steps: x86 multiplies unsigned by
signed bytes (VPDPBUSD, of the VNNI extensions), and takes five times as long for signed by signed (1.32).
Without VNNI, the usual kernels for that saturate 16-bit sums. A session then makes the weights unsigned as well
(``session.x64quantprecision``), for which the sums are exact. That takes 1.7 times as long as with VNNI.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vivit_export.runtime.session.multi_head_attention import used_nodes

_DOMAIN = "com.microsoft"
_ZERO = "unsigned_zero_point"


def use_int8_products(model: onnx.ModelProto) -> int:
    """Replace every product of INT8 codes, in place.

    Precondition: scales are float32; see `widen`.

    Args:
        model: loaded with or without its external data.

    Returns:
        Number of products replaced.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    users = {name: node for node in graph.node for name in node.input}
    replaced: dict[str, onnx.NodeProto] = {}
    unsigned: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        codes = _codes(node, producers, constants)
        if codes is not None:
            add = users.get(node.output[0]) if readers[node.output[0]] == 1 else None
            bias = _bias(add, node.output[0], constants)
            end = node if bias is None or add is None else add
            quantize = producers[codes[0].input[0]]
            unsigned.setdefault(quantize.output[0], _unsigned(quantize))
            replaced[end.output[0]] = _product(node, *codes, bias, end.output[0])
    if not replaced:
        return 0
    nodes = []
    for node in graph.node:
        nodes.append(replaced.get(node.output[0], node))
        if node.output[0] in unsigned:
            nodes.append(unsigned[node.output[0]])
    graph.initializer.append(numpy_helper.from_array(np.array(128, np.uint8), _ZERO))
    nodes = used_nodes(nodes, {value.name for value in graph.output})
    del graph.node[:]
    graph.node.extend(nodes)
    if _DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return len(replaced)


def _codes(
    node: onnx.NodeProto, producers: dict[str, onnx.NodeProto], constants: dict[str, TensorProto]
) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """Return the two DequantizeLinear nodes before a MatMul, if both are INT8."""
    if node.op_type != "MatMul":
        return None
    left, right = (producers.get(name) for name in node.input)
    if left is None or right is None or not left.op_type == right.op_type == "DequantizeLinear":
        return None
    quantize = producers.get(left.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear" or list(quantize.input)[1:] != list(left.input)[1:]:
        return None
    zeros = [constants.get(dequantize.input[2]) for dequantize in (left, right)]
    int8 = all(zero is not None and zero.data_type == TensorProto.INT8 for zero in zeros)
    return (left, right) if int8 and right.input[0] in constants else None


def _bias(add: onnx.NodeProto | None, product: str, constants: dict[str, TensorProto]) -> str | None:
    """Return the only constant vector added to the product, or None."""
    if add is None or add.op_type != "Add":
        return None
    other = add.input[1] if add.input[0] == product else add.input[0]
    return other if other in constants and len(constants[other].dims) == 1 else None


def _unsigned(quantize: onnx.NodeProto) -> onnx.NodeProto:
    """Return the same steps, counted from 0 to 255."""
    inputs = [*quantize.input[:2], _ZERO]
    return helper.make_node("QuantizeLinear", inputs, [_name(quantize.output[0])], name=_name(quantize.name))


def _name(signed: str) -> str:
    return f"{signed}/Unsigned"


def _product(
    matmul: onnx.NodeProto, left: onnx.NodeProto, right: onnx.NodeProto, bias: str | None, output: str
) -> onnx.NodeProto:
    inputs = [_name(left.input[0]), right.input[0], left.input[1], right.input[1], _ZERO, right.input[2]]
    if bias is not None:
        inputs.append(bias)
    return helper.make_node("MatMulIntegerToFloat", inputs, [output], name=matmul.name, domain=_DOMAIN)

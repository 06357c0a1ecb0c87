"""Run in float32 the operators of a bf16 graph that ONNX Runtime's CUDA engine has no bfloat16 kernel for.

::

    x -> Pad -> y   becomes   x -> Cast to float32 -> Pad -> Cast to bfloat16 -> y

For an operator that only moves values nothing changes; one that computes is rounded once, at its end.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

FLOAT_INPUTS = {"Pad": (0, 2)}
"""The operators that are cast around, and which of their inputs hold numbers."""


def cast_around_missing_kernels(model: onnx.ModelProto) -> int:
    """Put Casts around each such operator, in place.

    Precondition: all numbers of the graph between its first and its last Cast are bfloat16.

    Args:
        model: loaded with or without its external data.

    Returns:
        Number of operators cast around.
    """
    nodes: list[onnx.NodeProto] = []
    found = 0
    for node in model.graph.node:
        numbers = FLOAT_INPUTS.get(node.op_type)
        if numbers is None:
            nodes.append(node)
            continue
        found += 1
        for i in numbers:
            if i < len(node.input) and node.input[i]:
                nodes.append(_cast(node.input[i], f"{node.name}/wide_{i}", TensorProto.FLOAT))
                node.input[i] = nodes[-1].output[0]
        result, node.output[0] = node.output[0], f"{node.name}/wide"
        nodes += [node, _cast(node.output[0], result, TensorProto.BFLOAT16)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return found


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=to)

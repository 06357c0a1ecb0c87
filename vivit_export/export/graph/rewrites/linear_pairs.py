"""Merge two Linears in a row into one.

    (x W1 + b1) W2 + b2  =  x (W1 W2) + (b1 W2 + b2)

TimeSformer (arXiv:2102.05095) has such a pair in every block: the output projection of attention over time, and the
Linear after it. Between them, tokens are only counted anew.
"""

from __future__ import annotations

import onnx_ir as ir

from vivit_export.export.graph.rewrites.attention_block import Linear
from vivit_export.export.graph.rewrites.declined import Decline, ignore
from vivit_export.export.graph.rewrites.layernorm import linear_of


def merge_linear_pairs(model: ir.Model, decline: Decline = ignore) -> int:
    """Merge each Linear that only another Linear reads into that; return how many pairs there were."""
    del decline  # what is not a pair is not meant for it
    count = 0
    for node in [node for node in model.graph if node.op_type == "MatMul"]:
        first = linear_of(node, 0)
        second = _reader(first) if first is not None else None
        if first is None or second is None:
            continue
        weight, bias = second.weight, second.bias
        product = first.weight @ weight
        if product.size > first.weight.size + weight.size:
            continue  # a bottleneck, which has fewer operations as it is
        total = first.bias @ weight + bias
        first.set_weight(product)
        first.set_bias(total)
        _remove(second)
        count += 1
    return count


def _reader(linear: Linear) -> Linear | None:
    """Return the Linear that alone reads another, through Reshapes of the tokens at most."""
    value = (linear.add or linear.matmul).outputs[0]
    while not value.is_graph_output() and len(uses := tuple(value.uses())) == 1:
        node, index = uses[0]
        if node.op_type == "Reshape" and index == 0 and _keeps_channels(node):
            value = node.outputs[0]
            continue
        return linear_of(node, index)
    return None


def _keeps_channels(reshape: ir.Node) -> bool:
    source, result = reshape.inputs[0], reshape.outputs[0]
    if source is None or source.shape is None or result.shape is None:
        return False
    return isinstance(source.shape[-1], int) and source.shape[-1] == result.shape[-1]


def _remove(linear: Linear) -> None:
    last, source = linear.add or linear.matmul, linear.matmul.inputs[0]
    assert source is not None and isinstance(last.graph, ir.Graph)
    graph = last.graph
    source.shape = source.shape or last.outputs[0].shape
    ir.convenience.replace_all_uses_with(last.outputs[0], source)
    for node in (linear.add, linear.matmul):
        if node is not None:
            graph.remove(node, safe=True)

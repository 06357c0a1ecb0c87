"""Fold LayerNormalization's affine part into the Linears behind it.

    (x g + b) W + c  =  x (diag(g) W) + (b W + c)

Outlier channels, which trained transformers keep in g, then meet the weights that undo them before
anything is rounded to fp16.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vivit_export.export.graph.rewrites.attention_block import Linear
from vivit_export.export.graph.rewrites.nodes import double_of, replace_constant


def fold_layernorm(model: ir.Model) -> int:
    """Fold every LayerNormalization whose output only feeds Linears; return how many were changed.

    The last one of the encoder keeps its affine part: its output is the embedding.
    """
    count = 0
    for norm in [node for node in model.graph if node.op_type == "LayerNormalization"]:
        linears = _linears_behind(norm)
        if linears is None or len(norm.inputs) < 3 or any(v is None or v.const_value is None for v in norm.inputs[1:3]):
            continue
        gamma, beta = (double_of(v) for v in norm.inputs[1:3])
        if gamma.ndim != 1 or any(linear.weight.ndim != 2 for linear in linears):
            continue
        if (gamma == 1).all() and (beta == beta[0]).all():
            continue  # folded before; `absorb_query_bias` leaves a constant
        for linear in linears:
            weight, bias = linear.weight, linear.bias
            linear.set_weight(gamma[:, None] * weight)
            linear.set_bias(bias + beta @ weight)
        replace_constant(norm, 1, np.ones_like(gamma))
        replace_constant(norm, 2, np.zeros_like(beta))
        count += 1
    return count


def _linears_behind(norm: ir.Node) -> list[Linear] | None:
    """The Linears that read the output, or None where anything else does."""
    if norm.outputs[0].is_graph_output():
        return None
    linears = []
    for node, index in norm.outputs[0].uses():
        if node.op_type != "MatMul" or index != 0 or _constant(node, 1) is None or node.outputs[0].is_graph_output():
            return None
        readers = [use.node for use in node.outputs[0].uses()]
        add = readers[0] if len(readers) == 1 and readers[0].op_type == "Add" else None
        if add is not None and not any(_constant(add, i) is not None for i in (0, 1)):
            add = None  # a residual, not a bias
        linears.append(Linear(node, add))
    return linears or None


def _constant(node: ir.Node, index: int) -> ir.Value | None:
    value = node.inputs[index]
    return value if value is not None and value.const_value is not None else None

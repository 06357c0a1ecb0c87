"""Fold LayerNormalization's affine part into the Linears after it.

    (x g + b) W + c  =  x (diag(g) W) + (b W + c)

where x is the normalized value before the affine part: a Linear is linear, so this holds for every x.
Trained transformers have outlier channels in g. These then meet the weights that undo them before anything is
rounded to fp16.
"""

from __future__ import annotations

from itertools import starmap

import numpy as np
import onnx_ir as ir

from vivit_export.export.graph.rewrites.attention_block import Linear
from vivit_export.export.graph.rewrites.declined import Decline, ignore
from vivit_export.export.graph.rewrites.nodes import double_of, replace_constant


def fold_layernorm(model: ir.Model, decline: Decline = ignore) -> int:
    """Fold every LayerNormalization whose output only feeds Linears; return how many changed.

    The last one of the encoder keeps its affine part: its output is the embedding.
    """
    count = 0
    for norm in [node for node in model.graph if node.op_type == "LayerNormalization"]:
        uses = norm.outputs[0].uses()
        linears = [linear for linear in starmap(linear_of, uses) if linear is not None]
        if not linears:
            continue  # such as the last one
        if len(norm.inputs) == 2 and _is_ones(norm.inputs[1]):
            continue  # there is no affine part
        if len(norm.inputs) < 3 or any(v is None or v.const_value is None for v in norm.inputs[1:3]):
            decline(norm, "its affine part is not constant, or has no bias")
            continue
        gamma, beta = (double_of(v) for v in norm.inputs[1:3])
        if gamma.ndim == 1 and (gamma == 1).all() and (beta == beta[0]).all():
            continue  # folded before; `absorb_query_bias` leaves a constant
        values = [norm.outputs[0], *(linear.matmul.outputs[0] for linear in linears)]
        if len(linears) < len(uses) or any(value.is_graph_output() for value in values):
            decline(norm, "more than Linears reads it or its products")
            continue
        if gamma.ndim != 1 or any(linear.weight.ndim != 2 for linear in linears):
            decline(norm, "it, or a Linear after it, has weights of another rank")
            continue
        for linear in linears:
            weight, bias = linear.weight, linear.bias
            linear.set_weight(gamma[:, None] * weight)
            linear.set_bias(bias + beta @ weight)
        replace_constant(norm, 1, np.ones_like(gamma))
        replace_constant(norm, 2, np.zeros_like(beta))
        count += 1
    return count


def linear_of(node: ir.Node, index: int) -> Linear | None:
    """Return the Linear that a node belongs to by its input of that index, or None."""
    if node.op_type != "MatMul" or index != 0 or _constant(node, 1) is None:
        return None
    readers = [use.node for use in node.outputs[0].uses()]
    add = readers[0] if len(readers) == 1 and readers[0].op_type == "Add" else None
    if add is not None and not any(_constant(add, i) is not None for i in (0, 1)):
        add = None  # a residual, not a bias
    return Linear(node, add)


def _is_ones(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and bool((double_of(value) == 1).all())


def _constant(node: ir.Node, index: int) -> ir.Value | None:
    value = node.inputs[index]
    return value if value is not None and value.const_value is not None else None

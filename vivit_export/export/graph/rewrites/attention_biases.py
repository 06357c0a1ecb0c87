"""Fold the biases of Q, K and V away, exactly; each one that stays costs a copy kernel per block.

*Key*. q.(k + b) = q.k + q.b adds the same number to all keys of a query, which softmax does not
see: the bias is dropped.

*Value*. Rows of P = softmax(.) sum to one, so P (V + 1 b^T) = P V + 1 b^T: the bias moves through the
output projection, b_o <- b_o + b W_o.

*Query*. q.k_j gains b.k_j, a number per key, which softmax does see. The solution is LayerNormalization
itself. Without its affine part, its output x has zero mean over the N channels, so adding any constant
to a column of the weight after it changes nothing: x (W + 1 u^T) = x W. Let it output x + c instead, with
c the same for all channels. Then

    (x + c 1^T) W'  =  x W + b     for     W' = W - 1 mean(W) + 1 b / (c N),

where mean(W) is the mean of each column: the first term is unchanged, and c 1^T W' = b. With b = 0, the same
form makes K and V independent of c. No bias remains, no kernel is added, and this holds for every checkpoint.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vivit_export.export.graph.rewrites.attention_block import AttentionBlock, attention_blocks
from vivit_export.export.graph.rewrites.declined import Decline, ignore
from vivit_export.export.graph.rewrites.nodes import Float64, double_of, replace_constant

CONSTANT = 0.25
"""c: a power of two, so that x + c rounds as x does. From 1/8 to 2, c has no effect on the fp16 and bf16 drift
of the demo. A smaller c needs larger weights; a larger one takes range from x if x + c is quantized. The demo's
INT8 logits are a tenth closer to fp32 (RMS) with 1/4 than with 1, and FP8 gains more."""


def drop_key_bias(model: ir.Model, decline: Decline = ignore) -> int:
    """Remove the key bias; return how many blocks had one."""
    return sum(block.key.remove_bias() for block in attention_blocks(model, decline))


def move_value_bias(model: ir.Model, decline: Decline = ignore) -> int:
    """Move the value bias through the output projection; return how many blocks had one."""
    count = 0
    for block in attention_blocks(model, decline):
        moved = block.value.bias @ block.output.weight
        if block.value.remove_bias():
            block.output.set_bias(block.output.bias + moved)
            count += 1
    return count


def absorb_query_bias(model: ir.Model, decline: Decline = ignore) -> int:
    """Fold the query bias into the weights after LayerNormalization; return how many blocks had one.

    Precondition: the normalization has no affine part left (see `fold_layernorm`) and serves only
    the three projections; K and V have no bias. Other blocks keep their query bias.
    """
    count = 0
    for block in attention_blocks(model, decline):
        bias = block.query.bias
        if not bias.any():
            continue
        if obstacle := _obstacle(block):
            decline(block.attention, obstacle)
            continue
        for linear, wanted in ((block.query, bias), (block.key, None), (block.value, None)):
            linear.set_weight(_with_constant_channel(linear.weight, wanted))
        replace_constant(block.norm, 2, np.full_like(double_of(block.norm.inputs[2]), CONSTANT))
        block.query.remove_bias()
        count += 1
    return count


def _with_constant_channel(weight: Float64, bias: Float64 | None) -> Float64:
    centered: Float64 = weight - weight.mean(axis=0, keepdims=True)
    if bias is not None:
        centered += bias / (CONSTANT * len(weight))
    return centered


def _obstacle(block: AttentionBlock) -> str | None:
    gamma, beta = (double_of(v) for v in block.norm.inputs[1:3])
    if not ((gamma == 1).all() and (beta == 0).all()):
        return "the LayerNormalization before it has an affine part"
    if not block.owns_norm:
        return "more than Q, K and V reads the LayerNormalization before it"
    return None if block.key.add is None and block.value.add is None else "K or V has a bias"

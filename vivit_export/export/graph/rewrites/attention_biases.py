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

*Rotary positions* turn q and k by angles that depend on the token, so that q.b is another number for each key: there,
the key bias is folded away as the query bias is.
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
    count = 0
    for block in attention_blocks(model, decline):
        if not block.rotary:
            count += block.key.remove_bias()
        elif block.key.add is not None:
            decline(block.attention, "K is rotated by position after its bias, so softmax sees the bias")
    return count


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
    the three projections; V has no bias, and K has none unless it is rotated. Other blocks keep their query bias.
    """
    count = 0
    for block in attention_blocks(model, decline):
        if not block.query.bias.any() and not (block.rotary and block.key.bias.any()):
            continue
        if obstacle := _obstacle(block):
            decline(block.attention, obstacle)
            continue
        for linear in (block.query, block.key, block.value):
            linear.set_weight(_with_constant_channel(linear.weight, linear.bias))
            linear.remove_bias()
        replace_constant(block.norm, 2, np.full_like(double_of(block.norm.inputs[2]), CONSTANT))
        count += 1
    return count


def _with_constant_channel(weight: Float64, bias: Float64) -> Float64:
    centered: Float64 = weight - weight.mean(axis=0, keepdims=True)
    return centered + bias / (CONSTANT * len(weight))


def _obstacle(block: AttentionBlock) -> str | None:
    gamma, beta = (double_of(v) for v in block.norm.inputs[1:3])
    if not ((gamma == 1).all() and (beta == 0).all()):
        return "the LayerNormalization before it has an affine part"
    if not block.owns_norm:
        return "more than Q, K and V reads the LayerNormalization before it"
    return None if (block.rotary or block.key.add is None) and block.value.add is None else "K or V has a bias"

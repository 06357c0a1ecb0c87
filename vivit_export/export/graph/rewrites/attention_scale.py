"""Fold the softmax scale into the query projection.

    softmax(s (x W_q + b_q) K^T) = softmax((x (s W_q) + s b_q) K^T)

s is a number, so it may be anywhere in the product. This saves one multiplication per query element and, in
fp16, one rounding.
"""

from __future__ import annotations

import onnx_ir as ir

from vivit_export.export.graph.rewrites.attention_block import attention_blocks
from vivit_export.export.graph.rewrites.declined import Decline, ignore


def fold_attention_scale(model: ir.Model, decline: Decline = ignore) -> int:
    """Give every matched ``Attention`` the scale 1; return how many changed."""
    count = 0
    for block in attention_blocks(model, decline):
        scale = block.attention.attributes["scale"].as_float()
        if scale == 1.0:
            continue
        bias = block.query.bias
        block.query.set_weight(scale * block.query.weight)
        block.query.set_bias(scale * bias)
        block.attention.attributes["scale"] = ir.AttrFloat32("scale", 1.0)
        count += 1
    return count

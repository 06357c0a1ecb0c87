"""Exact rewrites of the traced graph, one module each, in the order they are applied.

A rewrite takes an onnx-ir model, changes it in place, and returns how many places it matched. It
must not change the function the graph computes in real arithmetic, and leaves alone what it does not
recognize. Nodes that it cuts off are removed at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vivit_export.errors import UsageError
from vivit_export.export.graph.rewrites.attention import lower_attention
from vivit_export.export.graph.rewrites.attention_biases import absorb_query_bias, drop_key_bias, move_value_bias
from vivit_export.export.graph.rewrites.attention_scale import fold_attention_scale
from vivit_export.export.graph.rewrites.class_token import keep_class_token
from vivit_export.export.graph.rewrites.equalize import equalize_heads
from vivit_export.export.graph.rewrites.layernorm import fold_layernorm
from vivit_export.export.graph.rewrites.patch_embedding import fold_pixels, lower_patch_embedding

__all__ = ["REWRITES", "apply_rewrites", "equalize_heads", "fold_pixels", "lower_attention"]

REWRITES: dict[str, Callable[[ir.Model], int]] = {
    "patch-embedding": lower_patch_embedding,
    "layernorm": fold_layernorm,
    "attention-scale": fold_attention_scale,
    "key-bias": drop_key_bias,
    "value-bias": move_value_bias,
    "query-bias": absorb_query_bias,
    "class-token": keep_class_token,
}


def apply_rewrites(model: ir.Model, skip: Collection[str] = ()) -> dict[str, int]:
    """Apply all rewrites but those named, in place.

    Returns:
        How many places each one changed, by name.

    Raises:
        UsageError: ``skip`` names a rewrite that does not exist.
    """
    unknown = sorted(set(skip) - {*REWRITES})
    if unknown:
        raise UsageError(f"--no-rewrite {unknown[0]!r} is not one of {', '.join(REWRITES)}")
    matched = {name: rewrite(model) for name, rewrite in REWRITES.items() if name not in skip}
    RemoveUnusedNodesPass()(model)
    return matched

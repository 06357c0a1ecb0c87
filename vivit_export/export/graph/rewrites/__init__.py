"""Exact rewrites of the traced graph, one module each; `vivit_export.rewrite` lists them in order.

A rewrite takes an onnx-ir model, changes it in place, and returns how many places it matched. It must
not change the function that the graph computes in real arithmetic, and leaves alone whatever it does not
recognize. If it finds its target but cannot match the nodes around it, it says why. Nodes that become
unused are removed at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vivit_export.bundle.manifest import Declined
from vivit_export.export.graph.rewrites.attention import lower_attention
from vivit_export.export.graph.rewrites.attention_biases import absorb_query_bias, drop_key_bias, move_value_bias
from vivit_export.export.graph.rewrites.attention_scale import fold_attention_scale
from vivit_export.export.graph.rewrites.class_token import keep_class_token
from vivit_export.export.graph.rewrites.declined import Decline
from vivit_export.export.graph.rewrites.equalize import equalize_heads
from vivit_export.export.graph.rewrites.layernorm import fold_layernorm
from vivit_export.export.graph.rewrites.linear_pairs import merge_linear_pairs
from vivit_export.export.graph.rewrites.mean_pooling import mean_before_last_linear
from vivit_export.export.graph.rewrites.patch_embedding import fold_pixels, lower_patch_embedding
from vivit_export.precision import Precision
from vivit_export.rewrite import Rewrite, choose_rewrites

__all__ = ["Applied", "apply_rewrites", "equalize_heads", "fold_pixels", "lower_attention"]

_FUNCTIONS: dict[Rewrite, Callable[[ir.Model, Decline], int]] = {
    Rewrite.PATCH_EMBEDDING: lower_patch_embedding,
    Rewrite.LINEAR_PAIRS: merge_linear_pairs,
    Rewrite.LAYERNORM: fold_layernorm,
    Rewrite.ATTENTION_SCALE: fold_attention_scale,
    Rewrite.KEY_BIAS: drop_key_bias,
    Rewrite.VALUE_BIAS: move_value_bias,
    Rewrite.QUERY_BIAS: absorb_query_bias,
    Rewrite.HEAD_SCALES: equalize_heads,
    Rewrite.CLASS_TOKEN: keep_class_token,
    Rewrite.MEAN_POOLING: mean_before_last_linear,
}


@dataclass(frozen=True)
class Applied:
    """What the rewrites changed.

    Attributes:
        counts: how many places each one changed, by name.
        declined: places that a rewrite left alone although it is meant for them.
    """

    counts: dict[str, int]
    declined: tuple[Declined, ...]


def apply_rewrites(model: ir.Model, precision: Precision, skip: Collection[str] = ()) -> Applied:
    """Apply all rewrites of a precision, except those named, in place.

    Raises:
        UsageError: ``skip`` names a rewrite that does not exist.
    """
    counts: dict[str, int] = {}
    declined: list[Declined] = []
    for rewrite in choose_rewrites(precision, skip):

        def decline(node: ir.Node, reason: str, name: str = rewrite.value) -> None:
            declined.append(Declined(name, str(node.name), reason))

        count = _FUNCTIONS[rewrite](model, decline)
        if count or rewrite.usual:
            counts[rewrite.value] = count
    RemoveUnusedNodesPass()(model)
    return Applied(counts, tuple(declined))

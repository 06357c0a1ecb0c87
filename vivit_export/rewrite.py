"""The exact rewrites of the graph: one frozen record each, in the order in which they are applied.

Their functions are in `vivit_export.export.graph.rewrites`. Nothing heavy is imported here, so that a
mistake on the command line is reported at once, and a report can be made without a graph.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from vivit_export.choices import NamedRecord
from vivit_export.errors import UsageError, option
from vivit_export.precision import Precision


class Rewrite(NamedRecord):
    """An exact rewrite; equal to its name, which the command line and the bundle use.

    Attributes:
        per_layer: expected places per layer of the encoder; 0: one place in the whole network.
        low_precision_only: whether float32 graphs skip it. ``query-bias`` adds a constant to the output of
            LayerNormalization, which costs bits (the logits' RMS error grows by a fifth on ViViT-B). It saves
            copies around fused attention, which float32 never has.
        quantized_only: whether it exists only for scales that several weights share. A quantized graph always has
            it: it cannot be left out.
    """

    #                  name            per layer  low only  quantized only
    PATCH_EMBEDDING = "patch-embedding", 0, False, False
    LAYERNORM = "layernorm", 2, False, False
    ATTENTION_SCALE = "attention-scale", 1, False, False
    KEY_BIAS = "key-bias", 1, False, False
    VALUE_BIAS = "value-bias", 1, False, False
    QUERY_BIAS = "query-bias", 1, True, False
    HEAD_SCALES = "head-scales", 1, False, True
    CLASS_TOKEN = "class-token", 0, False, False

    if not TYPE_CHECKING:  # a type checker would take it for the signature of ``Rewrite("layernorm")``

        def __new__(cls, name, per_layer, low_precision_only, quantized_only):
            """Make a member that is equal to its name."""
            member = str.__new__(cls, name)
            member._value_ = name
            member.per_layer = per_layer
            member.low_precision_only, member.quantized_only = low_precision_only, quantized_only
            return member

    per_layer: int
    low_precision_only: bool
    quantized_only: bool

    def places(self, num_layers: int) -> int:
        """Return in how many places of a network it is expected."""
        return self.per_layer * num_layers or 1

    def serves(self, precision: Precision) -> bool:
        """Return whether a graph of that precision gets it."""
        return (precision.rounds or not self.low_precision_only) and (precision.quantized or not self.quantized_only)


REWRITE_NAMES = tuple(rewrite.value for rewrite in Rewrite if not rewrite.quantized_only)
"""Names of the rewrites that an export may leave out."""


def choose_rewrites(precision: Precision, skip: Collection[str] = ()) -> tuple[Rewrite, ...]:
    """Return the rewrites of a graph, in order.

    Args:
        precision: precision of the graph.
        skip: names of rewrites to leave out.

    Raises:
        UsageError: ``skip`` names one that does not exist.
    """
    for name in sorted(skip):
        if name not in REWRITE_NAMES:
            raise UsageError(f"{option('skip_rewrites', repr(name))} is not one of {', '.join(REWRITE_NAMES)}")
    return tuple(rewrite for rewrite in Rewrite if rewrite.serves(precision) and rewrite not in skip)

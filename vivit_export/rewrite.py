"""The exact rewrites of the graph: one frozen record each, in the order in which they are applied.

Their functions are in `vivit_export.export.graph.rewrites`. Nothing heavy is imported here, so that a
mistake on the command line is reported at once, and a report can be made without a graph.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from vivit_export.anatomy import Anatomy
from vivit_export.choices import NamedRecord
from vivit_export.errors import UsageError, option
from vivit_export.precision import Precision


class Rewrite(NamedRecord):
    """An exact rewrite; equal to its name, which the command line and the bundle use.

    Attributes:
        place: where it is expected: once in the ``network`` or once for each ``attention``, ``norm`` or ``stack``.
        low_precision_only: whether float32 graphs skip it. ``query-bias`` adds a constant to the output of
            LayerNormalization, which costs bits (the logits' RMS error grows by a fifth on ViViT-B). It saves
            copies around fused attention, which float32 never has.
        quantized_only: whether it exists only for scales that several weights share. A quantized graph always has
            it: it cannot be left out.
    """

    #                  name            expected    low only  quantized only
    PATCH_EMBEDDING = "patch-embedding", "network", False, False
    LAYERNORM = "layernorm", "norm", False, False
    ATTENTION_SCALE = "attention-scale", "attention", False, False
    KEY_BIAS = "key-bias", "attention", False, False
    VALUE_BIAS = "value-bias", "attention", False, False
    QUERY_BIAS = "query-bias", "attention", True, False
    HEAD_SCALES = "head-scales", "attention", False, True
    CLASS_TOKEN = "class-token", "network", False, False

    if not TYPE_CHECKING:  # a type checker would take it for the signature of ``Rewrite("layernorm")``

        def __new__(cls, name, place, low_precision_only, quantized_only):
            """Make a member that is equal to its name."""
            member = str.__new__(cls, name)
            member._value_ = name
            member.place = place
            member.low_precision_only, member.quantized_only = low_precision_only, quantized_only
            return member

    place: str
    low_precision_only: bool
    quantized_only: bool

    def places(self, anatomy: Anatomy) -> int:
        """Return in how many places of a network it is expected."""
        counts = {"network": 1, "norm": anatomy.num_norms, "attention": anatomy.num_attentions}
        return counts[self.place]

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

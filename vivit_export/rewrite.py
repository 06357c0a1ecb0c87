"""The exact rewrites of the graph: one frozen record each, in the order in which they are applied.

Their functions are in `vivit_export.export.graph.rewrites`. Nothing heavy is imported here, so that a
mistake on the command line is reported at once, and a report can be made without a graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from vivit_export.anatomy import Anatomy
from vivit_export.choices import NamedRecord
from vivit_export.errors import UsageError, option
from vivit_export.precision import Precision


class Rewrite(NamedRecord):
    """An exact rewrite; equal to its name, which the command line and the bundle use.

    Attributes:
        place: what it is expected once for: a ``network``, an ``attention``, a ``norm``, a ``stack`` that ends in a
            class token, a ``mean`` over tokens, or a ``pair`` of Linears.
        low_precision_only: whether float32 graphs skip it. ``query-bias`` adds a constant to the output of
            LayerNormalization, which costs bits (the logits' RMS error grows by a fifth on ViViT-B). It saves
            copies around fused attention, which float32 never has.
        float32_only: whether only float32 graphs get it. ``mean-pooling`` takes a mean of what is four times as wide,
            and a mean runs in float32: a low-precision engine would write all of it once more (VideoMAE-B, fp16, SM89:
            154 MB of activations in place of 137).
        quantized_only: whether it exists only for scales that several weights share. A quantized graph always has
            it: it cannot be left out.
    """

    #                  name            expected    low only  float32 only  quantized only
    PATCH_EMBEDDING = "patch-embedding", "network", False, False, False
    LINEAR_PAIRS = "linear-pairs", "pair", False, False, False
    LAYERNORM = "layernorm", "norm", False, False, False
    ATTENTION_SCALE = "attention-scale", "attention", False, False, False
    KEY_BIAS = "key-bias", "attention", False, False, False
    VALUE_BIAS = "value-bias", "attention", False, False, False
    QUERY_BIAS = "query-bias", "attention", True, False, False
    HEAD_SCALES = "head-scales", "attention", False, False, True
    CLASS_TOKEN = "class-token", "stack", False, False, False
    MEAN_POOLING = "mean-pooling", "mean", False, True, False

    if not TYPE_CHECKING:  # a type checker would take it for the signature of ``Rewrite("layernorm")``

        def __new__(cls, name, place, low_precision_only, float32_only, quantized_only):
            """Make a member that is equal to its name."""
            member = str.__new__(cls, name)
            member._value_ = name
            member.place = place
            member.low_precision_only, member.float32_only = low_precision_only, float32_only
            member.quantized_only = quantized_only
            return member

    place: str
    low_precision_only: bool
    float32_only: bool
    quantized_only: bool

    def places(self, anatomy: Anatomy) -> int:
        """Return in how many places of a network it is expected."""
        counts = {
            "network": 1,
            "norm": anatomy.num_norms,
            "attention": anatomy.num_attentions,
            "stack": len(anatomy.stacks) if anatomy.pooling == "class-token" else 0,
            "mean": int(anatomy.pooling == "mean"),
            "pair": anatomy.num_pairs,
        }
        return counts[self.place]

    @property
    def usual(self) -> bool:
        """Whether most networks have a place for it, so that none is worth a word."""
        return self.place not in ("mean", "pair")

    def serves(self, precision: Precision) -> bool:
        """Return whether a graph of that precision gets it."""
        fits = not self.float32_only if precision.rounds else not self.low_precision_only
        return fits and (precision.quantized or not self.quantized_only)


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


def merged_linears(counts: Mapping[str, int]) -> int:
    """Return how many Linears of the encoder the rewrites merged into others.

    Args:
        counts: how many places each rewrite changed, by name.
    """
    return counts.get(str(Rewrite.LINEAR_PAIRS), 0)

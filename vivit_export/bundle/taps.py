"""Where drift begins: how far the network is from the reference at each tap, from the embeddings to the logits.

A tap is a value inside the network that a reader knows: the embeddings, the residual stream after the attention half
and after the MLP half of each block, the final norm, and the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vivit_export.precision import Precision

Cause = Literal["precision", "graph"]
"""``precision``: eager PyTorch has the error too, in the graph's type; ``graph``: only the graph has it."""


@dataclass(frozen=True, slots=True)
class TapError:
    """How far one run is from another at a tap; the worst of the clips.

    Attributes:
        error: RMS of the difference, relative to the RMS of the reference; None: not a finite number.
        cosine: smallest cosine of a clip's values and the reference's; None: not a finite number.
        max_abs: largest absolute difference; None: not a finite number.
        budget: largest ``error`` allowed; None: it is not limited.
    """

    error: float | None
    cosine: float | None
    max_abs: float | None
    budget: float | None = None

    @property
    def beyond(self) -> bool:
        """Whether the error is beyond its budget."""
        return self.budget is not None and (self.error is None or self.error > self.budget)


@dataclass(frozen=True, slots=True)
class Tap:
    """One tap.

    Attributes:
        name: as in ``layer 3 MLP``; layers count from 0, as in the names of nodes.
        precision: eager PyTorch in the type of the graph against eager float32: what the type costs. For INT8 and FP8
            that is fp16, the type around the codes, as PyTorch has no eager model in codes. None: the type is float32.
        graph: the graph against eager PyTorch in that type: what the graph adds, for INT8 and FP8 its codes included.
        total: the graph against eager float32.
    """

    name: str
    precision: TapError | None
    graph: TapError
    total: TapError

    @property
    def cause(self) -> Cause | None:
        """Which error is beyond its budget; None: neither."""
        if self.precision is not None and self.precision.beyond:
            return "precision"
        return "graph" if self.graph.beyond else None


@dataclass(frozen=True, slots=True)
class Suspect:
    """The first tap beyond its budget, and what computes it from the tap before.

    Attributes:
        tap: its name.
        cause: which error is beyond its budget.
        after: the tap before it; None: there is none.
        nodes: nodes of the graph between the two, in order; a plan names them too.
        linears: those of them that have weights, by module path.
        option: option of an export that keeps them in a wider type; None: there is none.
        pattern: value of that option; None: there is none.
    """

    tap: str
    cause: Cause
    after: str | None
    nodes: tuple[str, ...]
    linears: tuple[str, ...]
    option: str | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class TapReport:
    """All taps of one bundle.

    Attributes:
        graph: what ran the graph, and how.
        base: type of the eager model in the middle: that of the graph or, for INT8 and FP8, that around the codes.
        taps: from the embeddings to the logits.
        suspect: the first beyond its budget; None: all are within theirs.
    """

    graph: str
    base: Precision
    taps: tuple[Tap, ...]
    suspect: Suspect | None = None

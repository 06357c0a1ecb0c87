"""Where a rewrite found what it looks for and left it alone, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import onnx_ir as ir

Decline = Callable[[ir.Node, str], None]
"""Told of a node that a rewrite leaves alone, and the reason in words that follow the node's name."""


@dataclass(frozen=True, slots=True)
class Declined:
    """One such place.

    Attributes:
        rewrite: name.
        node: name.
        reason: why.
    """

    rewrite: str
    node: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return JSON types."""
        return asdict(self)


def ignore(_node: ir.Node, _reason: str) -> None:
    """Do not listen."""

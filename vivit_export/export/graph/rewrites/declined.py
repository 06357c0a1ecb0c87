"""How a rewrite says that it found what it looks for and left it alone, and why."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

Decline = Callable[[ir.Node, str], None]
"""Told of a node that a rewrite leaves alone, and the reason in words that follow the node's name."""


def ignore(_node: ir.Node, _reason: str) -> None:
    """Do not listen."""

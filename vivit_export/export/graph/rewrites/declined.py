"""How a rewrite reports that it found its target but left it alone, and why."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

Decline = Callable[[ir.Node, str], None]
"""Called with a node that a rewrite leaves alone, and the reason, worded to follow the node's name."""


def ignore(_node: ir.Node, _reason: str) -> None:
    """Ignore the report."""

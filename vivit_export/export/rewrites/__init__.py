"""Exact rewrites of the traced graph, one module each.

A rewrite takes an onnx-ir model, changes it in place, and returns how many places it matched.
It must not change the function the graph computes in real arithmetic.
"""

from vivit_export.export.rewrites.attention import lower_attention

__all__ = ["lower_attention"]

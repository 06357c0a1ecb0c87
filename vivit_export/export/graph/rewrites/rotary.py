"""Recognize rotary positions (arXiv:2104.09864) between a Linear and attention, in the form that our networks have.

    x * cos + (x with its halves swapped) * sin

for heads x, (batch, heads, tokens, channels), and two constant tables (tokens, channels).
"""

from __future__ import annotations

import onnx_ir as ir

from vivit_export.export.graph.rewrites.nodes import has_one_reader


def before_rotation(value: ir.Value | None) -> ir.Value | None:
    """Return the heads that a value is the rotation of, if nothing else reads them, or None."""
    total = value.producer() if value is not None else None
    if total is None or total.op_type != "Add":
        return None
    factors = [_times_table(part) for part in total.inputs]
    for straight, swapped in (factors, factors[::-1]):
        split = _before_swap(swapped) if swapped is not None else None
        if straight is None or split is None or split.inputs[0] is not straight or straight.is_graph_output():
            continue
        if len(tuple(straight.uses())) == 2:
            return straight
    return None


def _times_table(value: ir.Value | None) -> ir.Value | None:
    """Return what is multiplied with a constant table, if only one node reads the product, or None."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != "Mul" or not has_one_reader(value):
        return None
    tables = [v for v in node.inputs if v is not None and v.const_value is not None and len(v.const_value.shape) == 2]
    others = [v for v in node.inputs if v is not None and v.const_value is None]
    return others[0] if len(tables) == len(others) == 1 else None


def _before_swap(value: ir.Value) -> ir.Node | None:
    """Return the Split of the channels whose two halves a value joins in reverse order, or None."""
    concat = value.producer()
    if concat is None or concat.op_type != "Concat" or not has_one_reader(value) or len(concat.inputs) != 2:
        return None
    second, first = concat.inputs
    split = first.producer() if first is not None else None
    if split is None or split.op_type != "Split" or [*split.outputs] != [first, second]:
        return None
    halves = {None if half.shape is None else half.shape[-1] for half in split.outputs}
    of_channels = all(node.attributes.get_int("axis", 0) in (-1, 3) for node in (concat, split))
    return split if of_channels and len(halves) == 1 and all(map(has_one_reader, split.outputs)) else None

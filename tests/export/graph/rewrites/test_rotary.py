"""Rotary positions are recognized in the form that our networks are traced in, and in no other."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import parse

from vivit_export.export.graph.rewrites.rotary import before_rotation

_TABLE = np.ones((4, 4), np.float32)
_GRAPH = """<ir_version: 10, opset_import: ["" : 23]>
graph (float[2,2,4,4] x, float[4,4] given) => (float[2,2,4,4] y{more}) {{
    heads = Identity (x)
    a, b = Split <axis = {axis}, num_outputs = 2> (heads)
    swapped = Concat <axis = {axis}> ({order})
    first = Mul ({straight}, {table})
    second = Mul (swapped, sin)
    y_ = {total} (first, second)
    y = Identity (y_)
    {extra}
}}"""
_PLAIN = {
    "axis": "-1",
    "order": "b, a",
    "straight": "heads",
    "table": "cos",
    "total": "Add",
    "more": "",
    "extra": "",
}


def _rotation(**fields: str) -> tuple[ir.Model, ir.Value | None]:
    model = parse(_GRAPH.format(**{**_PLAIN, **fields}), cos=_TABLE, sin=_TABLE, row=_TABLE[0])
    total = next(node for node in model.graph if node.outputs[0].name == "y_")
    return model, before_rotation(total.outputs[0])


def test_it_is_found() -> None:
    for fields in ({}, {"axis": "3"}):
        _, heads = _rotation(**fields)
        assert heads is not None and heads.name == "heads"


@pytest.mark.parametrize(
    "fields",
    [
        {"axis": "1"},
        {"order": "a, b"},
        {"straight": "swapped"},
        {"table": "given"},
        {"table": "row"},
        {"total": "Sub"},
        {"more": ", float[2,2,4,4] z", "extra": "z = Identity (heads)"},
        {"more": ", float[2,2,4,4] z", "extra": "z = Identity (swapped)"},
        {"more": ", float[2,2,4,2] z", "extra": "z = Identity (a)"},
        {"more": ", float[2,2,4,4] z", "extra": "z = Identity (first)"},
    ],
    ids=str,
)
def test_another_form_is_not(fields: dict[str, str]) -> None:
    _, heads = _rotation(**fields)
    assert heads is None


def test_what_no_node_makes_is_not() -> None:
    model, _ = _rotation()
    assert before_rotation(model.graph.inputs[0]) is None and before_rotation(None) is None

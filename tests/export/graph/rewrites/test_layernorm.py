"""Affine parts go into the Linears behind, and stay where anything else reads them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from graphs import ops, parse, run_double, to_double

from vivit_export.export.graph.rewrites.layernorm import fold_layernorm

GRAPH = """
<ir_version: 10, opset_import: ["" : 23]>
norm (float[2, 4] x) => (float[2, 3] y{more}) {{
    n = LayerNormalization<axis = -1>(x, gamma, beta)
    product = MatMul(n, weight)
    y = Add(product, bias)
    {behind}
}}
"""
SHAPES: dict[str, tuple[int, ...]] = {"gamma": (4,), "beta": (4,), "weight": (4, 3), "bias": (3,)}
WEIGHTS = {
    name: np.random.default_rng(i).standard_normal(shape).astype(np.float32)
    for i, (name, shape) in enumerate(SHAPES.items())
}
READ = "more than Linears reads it or its products"
RANK = "it, or a Linear after it, has weights of another rank"


def test_the_affine_part_goes_into_the_linear_behind() -> None:
    before = to_double(parse(GRAPH.format(more="", behind=""), **WEIGHTS))
    after = before.clone()
    declined: list[str] = []
    assert fold_layernorm(after, lambda node, reason: declined.append(reason)) == 1
    gamma, beta = (value.const_value.numpy() for value in ops(after, "LayerNormalization")[0].inputs[1:])  # type: ignore[union-attr]
    assert (gamma == 1).all() and (beta == 0).all()
    x = np.random.default_rng(9).standard_normal((2, 4))
    np.testing.assert_allclose(run_double(after, x)["y"], run_double(before, x)["y"], rtol=0, atol=1e-12)
    assert fold_layernorm(after, lambda node, reason: declined.append(reason)) == 0
    assert not declined


@pytest.mark.parametrize(
    ("more", "behind", "weights", "reason"),
    [
        (", float[2, 4] z", "z = Relu(n)", WEIGHTS, READ),
        (", float[2, 4] n", "", WEIGHTS, READ),
        (", float[2, 3] product", "", WEIGHTS, READ),
        (
            "",
            "",
            {**WEIGHTS, "gamma": np.ones((2, 4), np.float32)},
            RANK,
        ),
    ],
    ids=["relu", "output", "product", "rank"],
)
def test_what_it_leaves_alone(more: str, behind: str, weights: dict[str, npt.NDArray[np.float32]], reason: str) -> None:
    model = parse(GRAPH.format(more=more, behind=behind), **weights)
    said: list[tuple[str, str]] = []
    assert fold_layernorm(model, lambda node, why: said.append((str(node.name), why))) == 0
    assert said == [(ops(model, "LayerNormalization")[0].name, reason)]


def test_one_without_linears_is_not_meant() -> None:
    text = """<ir_version: 10, opset_import: ["" : 23]>
        norm (float[2, 4] x) => (float[2, 4] y) { y = LayerNormalization<axis = -1>(x, gamma, beta) }"""
    model = parse(text, gamma=WEIGHTS["gamma"], beta=WEIGHTS["beta"])

    def refuse(*_: object) -> None:
        pytest.fail("it is not one to fold")

    assert fold_layernorm(model, refuse) == 0

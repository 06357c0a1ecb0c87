"""Q, K and V lose their biases, to weights that are there anyway."""

from __future__ import annotations

import pytest
from checkpoints import Checkpoints
from graphs import ops
from rewriting import DEEP, LAYERS, constant

from vivit_export.bundle.manifest import Declined
from vivit_export.export.graph.rewrites import apply_rewrites
from vivit_export.precision import Precision


def test_biases_and_affine_parts_are_gone_afterwards(checkpoints: Checkpoints) -> None:
    model = checkpoints.trace(**DEEP)
    apply_rewrites(model, Precision.FP16)
    names = {str(node.name) for node in model.graph}
    for i in range(LAYERS):
        for linear in "qkv":
            assert f"layers.{i}.attention.{linear}_proj/MatMul" in names
            assert f"layers.{i}.attention.{linear}_proj/Add" not in names
    norms = ops(model, "LayerNormalization")
    assert len(norms) == 2 * LAYERS + 1
    for norm in norms[:-1]:
        gamma, beta = (constant(model, str(v.name)) for v in norm.inputs[1:3] if v is not None)
        assert (gamma == 1).all()
        assert (beta == beta[0]).all()
    assert {node.attributes["scale"].as_float() for node in ops(model, "Attention")} == {1.0}
    assert not ops(model, "Conv") and not ops(model, "Expand")
    # Nothing is left of what was cut off, and no constant without a reader.
    assert all(any(v.uses() or v.is_graph_output() for v in node.outputs) for node in model.graph)
    assert all(value.uses() for value in model.graph.initializers.values())


@pytest.mark.parametrize(
    ("skipped", "reason"),
    [
        ("layernorm", "the LayerNormalization before it has an affine part"),
        ("key-bias", "K or V has a bias"),
        ("value-bias", "K or V has a bias"),
    ],
)
def test_a_query_bias_that_has_to_stay_says_why(checkpoints: Checkpoints, skipped: str, reason: str) -> None:
    model = checkpoints.trace(**DEEP)
    applied = apply_rewrites(model, Precision.FP16, (skipped,))
    nodes = [f"layers.{i}.attention/Attention" for i in range(LAYERS)]
    assert applied.declined == tuple(Declined("query-bias", node, reason) for node in nodes)

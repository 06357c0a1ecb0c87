"""Steps share out the graph: every node that has an effect on the logits computes exactly one tap."""

from __future__ import annotations

import pytest
from checkpoints import Checkpoints

from vivit_export.errors import BuildError
from vivit_export.export.graph.lowering import lower_precision
from vivit_export.export.graph.rewrites import apply_rewrites, lower_attention
from vivit_export.export.graph.taps import find_steps, linears_of
from vivit_export.families.family import TapPoint
from vivit_export.families.vivit import Vivit
from vivit_export.precision import Precision

NAMES = ["embeddings", "layer 0 attention", "layer 0 MLP", "layer 1 attention", "layer 1 MLP", "final norm", "logits"]


def taps(blocks: int) -> tuple[TapPoint, ...]:
    return Vivit().taps({"num_hidden_layers": blocks})


@pytest.mark.parametrize("pattern", [True, False])
def test_every_node_is_in_one_step_under_the_name_of_its_module(checkpoints: Checkpoints, pattern: bool) -> None:
    model = checkpoints.trace(num_hidden_layers=2)
    apply_rewrites(model, Precision.FP16)
    lower_attention(model, single_query_only=not pattern)
    lower_precision(model, Precision.FP16)
    steps = find_steps(model, taps(2))
    assert [step.name for step in steps] == NAMES
    names = [str(node.name) for step in steps for node in step.nodes]
    assert len(names) == len(set(names))
    assert {str(node.name) for node in model.graph} - set(names) == {"embedding/Cast"}
    for step in steps[1:-1]:
        (path,) = step.paths
        layer = path.rpartition(".")[0]
        assert all(str(node.name).startswith(layer or path) for node in step.nodes), step.name
    qkvo = tuple(f"layers.1.attention.{n}_proj" for n in "qkvo")
    assert sorted(linears_of(steps[3])) == sorted(qkvo)
    assert linears_of(steps[2]) == ("layers.0.mlp.fc1", "layers.0.mlp.fc2")
    assert linears_of(steps[-1]) == ("classifier",)


def test_without_a_head_the_last_tap_is_the_final_norm(checkpoints: Checkpoints) -> None:
    assert [step.name for step in find_steps(checkpoints.trace(headless=True), taps(1))][-2:] == [
        "layer 0 MLP",
        "final norm",
    ]


def test_a_graph_without_a_norm_of_the_network_is_refused(checkpoints: Checkpoints) -> None:
    said = r"has no LayerNormalization layers\.1\.layernorm_before, .* leave per_block out"
    with pytest.raises(BuildError, match=said):
        find_steps(checkpoints.trace(), taps(2))

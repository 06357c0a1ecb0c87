"""Find the taps of a graph (see `vivit_export.bundle.taps`), and what computes each from the one before.

The exact rewrites change neither the embeddings nor the residual stream, the final norm or the logits, so that these
are the eager network's own values. In the last block, only the class token may be left (`rewrites.class_token`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vivit_export.errors import BuildError, option
from vivit_export.families.family import TapPoint, tapped_outputs

_PATHS = {"logits": "classifier", "embedding": "encoder"}  # of what computes an output


@dataclass(frozen=True)
class Step:
    """What computes a tap.

    Attributes:
        name: name of the tap.
        paths: beginnings of the module paths of its nodes that have weights, such as ``layers.3.mlp``.
        value: the tap.
        nodes: nodes that compute it from earlier taps, in the order of the graph.
    """

    name: str
    paths: tuple[str, ...]
    value: ir.Value
    nodes: tuple[ir.Node, ...]


def find_steps(model: ir.Model, taps: Sequence[TapPoint]) -> list[Step]:
    """Return the steps from the embeddings to the logits, or to the final norm without a head.

    Args:
        model: the graph.
        taps: those of the network; see `vivit_export.families.family.Family.taps`.

    Raises:
        BuildError: a LayerNormalization of the network is not in the graph.
    """
    norms = {str(node.name): node for node in model.graph if node.op_type == "LayerNormalization"}
    names, values = [], []
    for tap in taps:
        norm = norms.get(f"{tap.norm}/LayerNormalization")
        if norm is None:
            raise BuildError(
                f"the graph has no LayerNormalization {tap.norm}, so its blocks cannot be told apart; leave "
                f"{option('per_block')} out"
            )
        names.append((tap.name, tap.paths))
        values.append(norm.outputs[0] if tap.norm_output else norm.inputs[0])
    outputs = {str(output.name): output for output in model.graph.outputs}
    for name in filter(outputs.__contains__, tapped_outputs(taps)):
        names.append((name, (_PATHS[name],)))
        values.append(outputs[name])
    seen: set[ir.Node] = set()
    steps = []
    for (name, paths), value in zip(names, values, strict=True):
        assert value is not None
        found = _producers(value, seen)
        seen |= found
        steps.append(Step(name, paths, value, tuple(node for node in model.graph if node in found)))
    return steps


def linears_of(step: Step) -> tuple[str, ...]:
    """Return the module paths of the nodes of a step that multiply with weights."""
    found = []
    for node in step.nodes:
        weight = node.inputs[1] if node.op_type in ("MatMul", "Gemm", "Conv") else None
        producer = weight.producer() if weight is not None else None
        if producer is not None and producer.op_type in ("DequantizeLinear", "Cast"):
            weight = producer.inputs[0]
        if weight is not None and weight.const_value is not None:
            found.append(str(node.name).rpartition("/")[0])
    return tuple(found)


def _producers(value: ir.Value, known: set[ir.Node]) -> set[ir.Node]:
    """Return the nodes that compute a value, except those already known."""
    found: set[ir.Node] = set()
    pending = [value.producer()]
    while pending:
        node = pending.pop()
        if node is None or node in known or node in found:
            continue
        found.add(node)
        pending += [source.producer() for source in node.inputs if source is not None]
    return found

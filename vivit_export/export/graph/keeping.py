"""Find the nodes that stay in float32 at the user's request, by their names.

A node goes by its own name (``layers.3.mlp.fc1/MatMul``), by the path of its module (``layers.3.mlp.fc1``), and the
projections of Q, K and V also by the name of the layer that they make together (``layers.3.attention.qkv``).
"""

from __future__ import annotations

import re

import onnx_ir as ir

from vivit_export.errors import UsageError, option
from vivit_export.export.graph.rewrites.nodes import module_path

_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "Attention"})
_PROJECTION = re.compile(r"(.*\.)[qkv]_proj")
_SHOWN = 4


def nodes_to_keep(model: ir.Model, pattern: str | None) -> tuple[str, ...]:
    """Return the names of the nodes that a regular expression keeps in float32, in the order of the graph.

    Args:
        model: float32 graph, before it is quantized and lowered.
        pattern: searched in every name that a node goes by; None: keep none.

    Raises:
        UsageError: it matches no node, or all that multiply.
    """
    if pattern is None:
        return ()
    nodes = float_nodes(model)
    kept = tuple(str(node.name) for node in nodes if any(re.search(pattern, name) for name in _names(node)))
    given = option("keep_fp32", repr(pattern))
    if not kept:
        names = sorted({module_path(node) for node in nodes if _has_weight(node)})
        raise UsageError(
            f"{given} matches none of the graph's {len(nodes)} nodes; they are named like {', '.join(names[:_SHOWN])}"
        )
    products = {str(node.name) for node in nodes if is_product(node)}
    if products <= set(kept):
        raise UsageError(
            f"{given} matches every product of the graph, so nothing would be left to round; name fewer, or export "
            f"{option('precision', 'fp32')}"
        )
    return kept


def float_nodes(model: ir.Model) -> list[ir.Node]:
    """Return the nodes of a float32 graph that have a float result."""
    return [node for node in model.graph if any(value.dtype == ir.DataType.FLOAT for value in node.outputs)]


def is_product(node: ir.Node) -> bool:
    """Whether a node multiplies matrices."""
    return node.op_type in _PRODUCTS


def layer_path(node: ir.Node) -> str:
    """Return the path of the module that a node is from, or of the layer of Q, K and V."""
    path = module_path(node)
    projection = _PROJECTION.fullmatch(path)
    return f"{projection[1]}qkv" if projection else path


def _names(node: ir.Node) -> set[str]:
    return {str(node.name), module_path(node), layer_path(node)}


def _has_weight(node: ir.Node) -> bool:
    weight = node.inputs[1] if is_product(node) and len(node.inputs) > 1 else None
    return weight is not None and weight.const_value is not None

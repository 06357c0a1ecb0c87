"""Lower ``Attention`` to the primitive pattern that TensorRT fuses.

    Attention(Q, K, V; s)  =  Softmax((s Q) K^T) V          (ONNX operator spec, Attention-23)

The scale is applied to Q before the product, not to the scores after it: with |q.k| near 65504 / s, the
scores would overflow fp16, and TensorRT asks for this form ("Fused Attention" in its docs). As an op,
attention is an error for every TensorRT flavour if no fused kernel exists (fp32). As a pattern it is
merely slower, so the pattern is the portable form.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vivit_export.export.graph.rewrites.nodes import TypedTape, module_path, new_constant


def lower_attention(model: ir.Model, *, single_query_only: bool = False) -> int:
    """Replace every ``Attention`` with Mul, MatMul, Softmax, MatMul.

    Precondition: float32; 4-D Q, K, V (batch, heads, tokens, head size), no mask, one output, an explicit
    ``scale``, as `vivit_export.export.graph.trace` produces it.

    Args:
        model: changed in place.
        single_query_only: only those that attend from one token (see `class_token`). Their scores are one row
            per head, so the op saves nothing, and TensorRT for RTX has no kernel for some of them (1.7.1).

    Returns:
        Number of ``Attention`` nodes replaced.
    """
    found = [node for node in model.graph if node.op_type == "Attention"]
    if single_query_only:
        found = [node for node in found if _num_queries(node) == 1]
    for node in found:
        _lower(model.graph, node)
    return len(found)


def _num_queries(attention: ir.Node) -> int | None:
    query = attention.inputs[0]
    tokens = query.shape[2] if query is not None and query.shape is not None else None
    return tokens if isinstance(tokens, int) else None


def _lower(graph: ir.Graph, attention: ir.Node) -> None:
    query, key, value = attention.inputs
    assert query is not None and key is not None and value is not None
    path = module_path(attention)
    factor = attention.attributes["scale"].as_float()
    tape, float32 = TypedTape(), ir.DataType.FLOAT
    key_t = _transposed(tape, graph, key, attention, path)
    # Queries may be fewer than keys: see `class_token`.
    scores_shape = ir.Shape([*query.shape[:3], key.shape[2]]) if query.shape and key.shape else None
    if factor != 1.0:
        scale = new_constant(graph, f"{path}.scale", np.array(factor, np.float32))
        query = tape.add("Mul", [query, scale], f"{path}/Scale", float32, query.shape)
    scores = tape.add("MatMul", [query, key_t], f"{path}/QK", float32, scores_shape)
    probs = tape.add("Softmax", [scores], f"{path}/Softmax", float32, scores_shape, axis=-1)
    context = tape.add("MatMul", [probs, value], f"{path}/PV", float32, query.shape)
    tape.insert_before(attention)
    ir.convenience.replace_all_uses_with(attention.outputs[0], context)
    graph.remove(attention, safe=True)


def _transposed(tape: TypedTape, graph: ir.Graph, key: ir.Value, attention: ir.Node, path: str) -> ir.Value:
    """Return K as (batch, heads, head size, tokens), merged into the transpose that splits the heads."""
    split = key.producer()
    perm = [0, 1, 3, 2]
    if split is not None and split.op_type == "Transpose" and len(key.uses()) == 1:
        inner = list(split.attributes["perm"].as_ints())
        source, perm = split.inputs[0], [inner[i] for i in perm]
        assert source is not None
    else:
        source, split = key, None
    shape = ir.Shape([key.shape[i] for i in (0, 1, 3, 2)]) if key.shape is not None else None
    transposed = tape.add("Transpose", [source], f"{path}/KeyTranspose", ir.DataType.FLOAT, shape, perm=perm)
    if split is not None:
        attention.replace_input_with(1, None)
        graph.remove(split, safe=True)
    return transposed

"""Take the mean over all tokens before the last Linear, because nothing else is read.

Where the classifier reads the mean of the tokens (VideoMAE, arXiv:2203.12602), a mean and a Linear are both linear, and
the mean treats all tokens alike:

    mean(x + (g W + b))  =  mean(x) + (mean(g) W + b)

where g is what comes out of the activation of the last MLP. The product has one row per clip instead of one per token,
which saves 2 % of a VideoMAE-B clip's arithmetic. It is for float32 alone: see `vivit_export.rewrite`.
"""

from __future__ import annotations

import onnx_ir as ir

from vivit_export.export.graph.rewrites.attention_block import Linear
from vivit_export.export.graph.rewrites.declined import Decline, ignore
from vivit_export.export.graph.rewrites.layernorm import linear_of
from vivit_export.export.graph.rewrites.nodes import TypedTape, array_of, has_one_reader, module_path


def mean_before_last_linear(model: ir.Model, decline: Decline = ignore) -> int:
    """Move the mean over tokens that leads to the outputs; return 1 if there was one."""
    count = 0
    for mean in [node for node in model.graph if node.op_type == "ReduceMean"]:
        if not _is_over_tokens(mean):
            continue
        found = _residual(mean)
        if found is None:
            decline(mean, "what it reads is not a residual, and a Linear that nothing else reads")
            continue
        _move(mean, *found)
        count += 1
    return count


def _is_over_tokens(mean: ir.Node) -> bool:
    """Return whether it makes (batch, channels) of (batch, tokens, channels)."""
    source, result = mean.inputs[0], mean.outputs[0]
    axes = mean.inputs[1] if len(mean.inputs) > 1 else None
    constant = axes is not None and axes.const_value is not None and array_of(axes).ravel().tolist() == [1]
    three = source is not None and source.shape is not None and len(source.shape) == 3
    return constant and three and result.shape is not None and len(result.shape) == 2


def _residual(mean: ir.Node) -> tuple[ir.Node, Linear, int] | None:
    """Return the Add that the mean reads, the Linear that is one of its inputs, and which input."""
    source = mean.inputs[0]
    add = source.producer() if source is not None else None
    if add is None or add.op_type != "Add" or not has_one_reader(add.outputs[0]):
        return None
    for index in (0, 1):
        total = add.inputs[index]
        node = total.producer() if total is not None else None
        product = node
        if node is not None and node.op_type == "Add":
            product = next((v.producer() for v in node.inputs if v is not None and v.const_value is None), None)
        linear = linear_of(product, 0) if product is not None else None
        ends = None if linear is None else (linear.add or linear.matmul)
        if linear is None or ends is not node or total is None or not has_one_reader(total):
            continue
        if linear.add is None or has_one_reader(linear.matmul.outputs[0]):
            return add, linear, index
    return None


def _move(mean: ir.Node, add: ir.Node, linear: Linear, index: int) -> None:
    residual = add.inputs[1 - index]
    source, result = linear.matmul.inputs[0], mean.outputs[0]
    assert residual is not None and source is not None and source.shape is not None and result.shape is not None
    before = linear.matmul
    for node, value, where in ((before, source, module_path(before)), (add, residual, module_path(add))):
        tape = TypedTape()
        assert value.shape is not None
        shape = ir.Shape([value.shape[0], value.shape[2]])
        pooled = tape.add("ReduceMean", [value, _axes(mean)], f"{where}/Mean", value.dtype, shape, keepdims=0)
        tape.insert_before(node)
        node.replace_input_with([*node.inputs].index(value), pooled)
    for changed in (linear.matmul, linear.add, add):
        if changed is not None:
            changed.outputs[0].shape = result.shape
    graph = mean.graph
    if result.is_graph_output():
        _hand_over(mean, add)
    ir.convenience.replace_all_uses_with(result, add.outputs[0])
    assert isinstance(graph, ir.Graph)
    graph.remove(mean, safe=True)


def _hand_over(mean: ir.Node, add: ir.Node) -> None:
    """Let what the mean was, an output of the graph, be what the Add puts out."""
    graph = mean.graph
    assert isinstance(graph, ir.Graph)
    old, new = mean.outputs[0], add.outputs[0]
    new.name, old.name = old.name, f"{old.name}_before"
    graph.outputs[[*graph.outputs].index(old)] = new


def _axes(mean: ir.Node) -> ir.Value:
    axes = mean.inputs[1]
    assert axes is not None
    return axes

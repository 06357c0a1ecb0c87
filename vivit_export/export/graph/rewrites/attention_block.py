"""Find the attention blocks of a traced graph, and change their weights.

onnxscript does the matching. Rewrites that need a block leave alone any that does not match.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from vivit_export.export.graph.rewrites.declined import Decline, ignore
from vivit_export.export.graph.rewrites.nodes import (
    Float64,
    TypedTape,
    array_of,
    double_of,
    graph_of,
    has_one_reader,
    module_path,
    new_constant,
    replace_constant,
)
from vivit_export.export.graph.rewrites.rotary import before_rotation


@dataclass(frozen=True)
class Linear:
    """``x @ weight + bias`` in the graph; without an Add, there is no bias.

    Attributes:
        matmul: the product; its second input is a constant (in, out).
        add: the sum, or None.
    """

    matmul: ir.Node
    add: ir.Node | None

    @property
    def weight(self) -> Float64:
        """(in, out) in float64."""
        return double_of(self.matmul.inputs[1])

    @property
    def bias(self) -> Float64:
        """(out,) in float64; zeros if there is no Add."""
        if self.add is None:
            return np.zeros(self.weight.shape[1])
        return double_of(self.add.inputs[self._bias_index])

    @property
    def _bias_index(self) -> int:
        assert self.add is not None
        return 1 if self.add.inputs[0] is self.matmul.outputs[0] else 0

    def set_weight(self, weight: Float64) -> None:
        """Replace the weight, in its own dtype; a constant shared with other nodes is not touched."""
        replace_constant(self.matmul, 1, weight)

    def set_bias(self, bias: Float64) -> None:
        """Replace the bias, in its own dtype; a missing Add is made, unless it would add zeros."""
        if self.add is not None:
            replace_constant(self.add, self._bias_index, bias)
        elif bias.any():
            _insert_add(self.matmul, bias)

    def remove_bias(self) -> bool:
        """Remove the Add; return whether there was one."""
        if self.add is None:
            return False
        ir.convenience.replace_all_uses_with(self.add.outputs[0], self.matmul.outputs[0])
        graph_of(self.add).remove(self.add, safe=True)
        return True


@dataclass(frozen=True)
class AttentionBlock:
    """LayerNormalization, the projections of its output, ``Attention`` and the output projection.

    Attributes:
        norm: the LayerNormalization.
        query: its projection to Q.
        key: its projection to K.
        value: its projection to V.
        attention: the op.
        output: the Linear that reads the joined heads.
        rotary: whether Q and K are rotated by position (arXiv:2104.09864) after their Linears: tokens then see
            different biases, and the halves of a head belong together.
    """

    norm: ir.Node
    query: Linear
    key: Linear
    value: Linear
    attention: ir.Node
    output: Linear
    rotary: bool = False

    @property
    def heads(self) -> tuple[int, int]:
        """How many heads Q has, and how many channels each."""
        shape = self.attention.inputs[0].shape  # type: ignore[union-attr]
        assert shape is not None
        return int(shape[1]), int(shape[3])  # type: ignore[arg-type]

    @property
    def owns_norm(self) -> bool:
        """Whether nothing but the three projections reads the normalized activations."""
        return len(tuple(self.norm.outputs[0].uses())) == 3


def attention_blocks(model: ir.Model, decline: Decline = ignore) -> Iterator[AttentionBlock]:
    """Yield the blocks in graph order; safe while a rewrite changes the one it was given.

    Args:
        model: the graph.
        decline: called for each ``Attention`` that does not match a known block.
    """
    for node in [node for node in model.graph if node.op_type == "Attention"]:
        block = _match_block(model, node)
        if isinstance(block, AttentionBlock):
            yield block
        else:
            decline(node, block)


def _insert_add(matmul: ir.Node, bias: Float64) -> None:
    product, path, tape = matmul.outputs[0], module_path(matmul), TypedTape()
    constant = new_constant(graph_of(matmul), f"{path}.bias", bias.astype(array_of(matmul.inputs[1]).dtype))
    total = tape.add("Add", [product, constant], f"{path}/Add", product.dtype, product.shape)
    ir.convenience.replace_all_uses_with(product, total)
    tape.nodes[0].replace_input_with(0, product)
    tape.insert_after(matmul)


def _projection(op: Any, x: Any, weight: Any, bias: Any, shape: Any) -> Any:
    total = op.Add(op.MatMul(x, weight, _outputs=["product"]), bias, _outputs=["sum"])
    return op.Transpose(op.Reshape(total, shape), perm=[0, 2, 1, 3])


def _bare_projection(op: Any, x: Any, weight: Any, shape: Any) -> Any:
    return op.Transpose(op.Reshape(op.MatMul(x, weight, _outputs=["product"]), shape), perm=[0, 2, 1, 3])


def _output(op: Any, context: Any, shape: Any, weight: Any, bias: Any) -> Any:
    joined = op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), shape)
    return op.Add(op.MatMul(joined, weight, _outputs=["product"]), bias, _outputs=["sum"])


_PROJECTIONS = (pattern.Pattern(_projection), pattern.Pattern(_bare_projection))
_OUTPUT = pattern.Pattern(_output)


def _match_block(model: ir.Model, attention: ir.Node) -> AttentionBlock | str:
    """Return the block around a node, or why there is none."""
    rotated = [before_rotation(value) for value in attention.inputs[:2]]
    rotary = all(value is not None for value in rotated)
    heads = [*rotated, attention.inputs[2]] if rotary else attention.inputs[:3]
    projections = [_match_linear(model, value, _PROJECTIONS) for value in heads]
    sum_value = _follow(attention.outputs[0], "Transpose", "Reshape", "MatMul", "Add")
    output = _match_linear(model, sum_value, (_OUTPUT,))
    if not _is_plain_attention(attention):
        return "it has a mask, a softcap or other outputs, or no scale of its own"
    query, key, value = projections
    if query is None or key is None or value is None:
        return "Q, K or V is not a Linear with constant weights, split into heads, that nothing else reads"
    if output is None:
        return "the joined heads are not read by one Linear alone, with constant weights"
    if len({linear.weight.shape[1] for linear in (query, key, value)} | {len(output.weight)}) > 1:
        return "heads are shared or cut"
    if not all(v is not None and has_one_reader(v) for v in attention.inputs):
        return "more than attention reads Q, K or V"
    sources = {linear.matmul.inputs[0] for linear in (query, key, value)}
    norm = sources.pop().producer() if len(sources) == 1 else None  # type: ignore[union-attr]
    if norm is None or norm.op_type != "LayerNormalization" or len(norm.inputs) < 3:
        return "Q, K and V are not made of one LayerNormalization with a bias"
    return AttentionBlock(norm, query, key, value, attention, output, rotary)


def _is_plain_attention(node: ir.Node) -> bool:
    """``Softmax(scale Q K^T) V`` and nothing else: a softcap sees the key bias, other outputs show the scores."""
    softcap = node.attributes.get("softcap")
    has_cap = softcap is not None and softcap.as_float() != 0
    return "scale" in node.attributes and len(node.inputs) == 3 and len(node.outputs) == 1 and not has_cap


def _follow(value: ir.Value, *op_types: str) -> ir.Value | None:
    """Return the value at the end of a chain of ops, each the only reader of the one before."""
    for op_type in op_types:
        uses = tuple(value.uses())
        if not has_one_reader(value) or uses[0].node.op_type != op_type:
            return None
        value = uses[0].node.outputs[0]
    return value


def _match_linear(model: ir.Model, value: ir.Value | None, patterns: tuple[pattern.Pattern, ...]) -> Linear | None:
    """The Linear that produces ``value``, if it has constant weights and nothing else reads its inner values."""
    root = value.producer() if value is not None else None
    if root is None:
        return None
    for candidate in patterns:
        match = candidate.match(model, model.graph, root, check_nodes_are_removable=False)
        if match:
            found = match.bindings
            inside = {v for node in match.nodes for v in node.outputs} - {value}
            if not all(has_one_reader(v) for v in inside):
                return None
            weight, bias = (found[name].const_value if name in found else None for name in ("weight", "bias"))
            if weight is None or len(weight.shape) != 2:
                return None
            if "bias" in found and (bias is None or list(bias.shape) != [weight.shape[1]]):
                return None
            total = found.get("sum")
            return Linear(found["product"].producer(), total.producer() if total is not None else None)
    return None

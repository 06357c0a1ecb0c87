r"""Rewrite attention for ONNX Runtime as one operator that never stores the scores.

::

    q (B, S, H d) -> Reshape -> Transpose -\
    k (B, S, H d) -> Reshape -> Transpose --> Attention -> Transpose -> Reshape -> (B, S, H d)
    v (B, S, H d) -> Reshape -> Transpose -/

    becomes   MultiHeadAttention(q, k, v; H, scale)   of the domain com.microsoft

``Attention`` may also be in its pattern form, Softmax((scale Q) K^T) V. After their Transpose, Q and K may be
rotated by position, x * cos + (x with its halves swapped) * sin; their heads are then joined again. The function is the
same in exact arithmetic, and the rounding is no worse. What changes is memory: the portable forms compute the
scores of all heads (472 MB per clip of ViViT-B), this operator one block of rows at a time.

The bundle keeps its portable graph; this happens at load time, without touching the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper, numpy_helper

from vivit_export.bundle.graph import parse_graph

_DOMAIN = "com.microsoft"
_OPSET_WITHOUT_ATTENTION = 22
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_SPLIT, _SPLIT_KEY = [0, 2, 1, 3], [0, 2, 3, 1]


@dataclass(frozen=True)
class _Heads:
    """Q, K or V.

    Attributes:
        name: the tensor.
        shape: (B, S, H, d).
        joined: whether the tensor is (B, S, H d), which was split into heads; else it is (B, H, S, d).
    """

    name: str
    shape: tuple[int, ...]
    joined: bool


@dataclass(frozen=True)
class _Match:
    """One attention: its inputs, the node that makes its 3-D result, and what it computes."""

    inputs: tuple[_Heads, ...]
    end: onnx.NodeProto
    num_heads: int
    scale: float
    name: str


def use_multi_head_attention(model: onnx.ModelProto) -> int:
    """Replace every attention of the two forms, in place.

    Precondition: attention is float32, or on a GPU in one narrow type with its softmax in that or in float32, which
    the operator computes in float32 in any case. A node of any other form, such as one with a mask, is left as it is.

    Args:
        model: loaded with or without its external data.

    Returns:
        Number of attentions replaced.
    """
    matches = _Graph(model.graph).find()
    if not matches:
        return 0
    lean = {match.end.output[0]: _lean_nodes(match) for match in matches}
    nodes = [new for node in model.graph.node for new in lean.get(node.output[0], [node])]
    nodes = used_nodes(nodes, {value.name for value in model.graph.output})
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if _DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    _lower_opset(model)
    return len(matches)


def is_made_from(content: bytes, original: bytes) -> bool:
    """Return whether a serialized graph is what `use_multi_head_attention` makes of another, and nothing else.

    Args:
        content: it may be anything.
        original: a sound graph.
    """
    expected = onnx.load_model_from_string(original)
    use_multi_head_attention(expected)
    return parse_graph(content) == expected


def _lower_opset(model: onnx.ModelProto) -> None:
    """Declare the opset before the one with Attention, if nothing needs that any more.

    ONNX Runtime 1.23, the last for Python 3.10, runs QuantizeLinear up to opset 21 only. What an export writes of opset
    23 besides Attention computes the same in both.
    """
    if any(node.op_type == "Attention" for node in model.graph.node):
        return
    for opset in model.opset_import:
        if not opset.domain:
            opset.version = min(opset.version, _OPSET_WITHOUT_ATTENTION)


def _lean_nodes(match: _Match) -> list[onnx.NodeProto]:
    nodes, inputs = [], []
    for number, heads in enumerate(match.inputs):
        name = heads.name
        if not heads.joined:  # to the shape of the result, which is that of Q, K and V
            swapped, name = (f"{match.end.output[0]}/{done}{number}" for done in ("Swapped", "Joined"))
            nodes.append(helper.make_node("Transpose", [heads.name], [swapped], name=swapped, perm=_SPLIT))
            join = helper.make_node("Reshape", [swapped, match.end.input[1]], [name], name=name)
            join.attribute.extend(match.end.attribute)
            nodes.append(join)
        inputs.append(name)
    lean = helper.make_node(
        "MultiHeadAttention",
        inputs,
        list(match.end.output),
        name=match.name,
        domain=_DOMAIN,
        num_heads=match.num_heads,
        scale=match.scale,
    )
    return [*nodes, lean]


def used_nodes(nodes: list[onnx.NodeProto], needed: set[str]) -> list[onnx.NodeProto]:
    """Nodes that the outputs ``needed`` depend on; ``nodes`` are in topological order."""
    needed, kept = set(needed), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


class _Graph:
    """Lookups in a graph, and the search for attention."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = graph.node
        self._producers = {name: node for node in graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        for value in graph.output:
            self._users.setdefault(value.name, []).append(onnx.NodeProto())  # an output is a use too

    def find(self) -> list[_Match]:
        """Return the attentions of both forms, in the graph's order."""
        found = []
        for node in self._nodes:
            match = self._operator(node) if node.op_type == "Attention" else None
            match = self._pattern(node) if node.op_type == "Softmax" else match
            if match is not None:
                found.append(match)
        return found

    def _operator(self, node: onnx.NodeProto) -> _Match | None:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        scale = attributes.pop("scale", None)
        if any(attributes.values()) or len(node.input) != 3 or len(node.output) != 1:
            return None  # causal, capped, masked, cached or asked for its scores
        splits = [self._split(name, _SPLIT) for name in node.input]
        return self._match(splits, node.output[0], node.name, scale)

    def _pattern(self, softmax: onnx.NodeProto) -> _Match | None:
        axis = next((a.i for a in softmax.attribute if a.name == "axis"), -1)
        scores = self._producer(softmax.input[0], "MatMul")
        product = self._user(softmax.output[0], "MatMul")
        if axis not in (-1, 3) or scores is None or product is None:
            return None
        query, scale = self._scaled(scores.input[0])
        if scale is None or self._past_casts(product.input[0]) != softmax.output[0]:
            return None
        splits = [
            self._split(query, _SPLIT),
            self._split(scores.input[1], _SPLIT_KEY),
            self._split(product.input[1], _SPLIT),
        ]
        return self._match(splits, product.output[0], softmax.name.rpartition("/")[0] + "/Lean", scale)

    def _match(self, splits: list[_Heads | None], result: str, name: str, scale: float | None) -> _Match | None:
        q, k, v = splits
        end = self._joined(result)
        if q is None or k is None or v is None or end is None or not q.shape[1:] == k.shape[1:] == v.shape[1:]:
            return None
        _, tokens, heads, head_size = q.shape
        if end[1][1:] != (tokens, heads * head_size):
            return None
        return _Match((q, k, v), end[0], heads, 1 / math.sqrt(head_size) if scale is None else scale, name)

    def _split(self, name: str, perm: list[int]) -> _Heads | None:
        """Return what ``name`` is, with heads and tokens swapped by ``perm``; None for any other form."""
        plain = self._plain_split(name, perm)
        if plain is not None or perm == _SPLIT:
            return plain or self._rotated(name)
        transpose = self._producer(name, "Transpose")
        turned = transpose is not None and list(transpose.attribute[0].ints) == [0, 1, 3, 2]
        return self._rotated(transpose.input[0]) if transpose is not None and turned else None

    def _plain_split(self, name: str, perm: list[int]) -> _Heads | None:
        """Return what ``name`` is if nothing but a Reshape and a Transpose make it."""
        transpose = self._producer(name, "Transpose")
        if transpose is None or list(transpose.attribute[0].ints) != perm:
            return None
        reshape = self._producer(transpose.input[0], "Reshape")
        shape = self._shape(reshape)
        fits = len(shape) == 4 and min(shape[1:]) > 0
        return _Heads(reshape.input[0], shape, True) if reshape is not None and fits else None

    def _rotated(self, name: str) -> _Heads | None:
        """Return what ``name`` is, split into heads and then rotated by position; None for any other form."""
        total = self._producer(name, "Add")
        if total is None:
            return None
        for first, second in (total.input, total.input[::-1]):
            (straight, table), (swapped, other) = self._times_table(first), self._times_table(second)
            heads = self._plain_split(straight, _SPLIT) if straight and straight == self._before_swap(swapped) else None
            if heads is not None and table == other == (heads.shape[1], heads.shape[3]):
                return _Heads(name, heads.shape, False)
        return None

    def _times_table(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Return what is multiplied with a constant, and the shape of that; of another form, nothing."""
        multiply = self._producer(name, "Mul")
        inputs = [self._past_casts(value) for value in multiply.input] if multiply is not None else []
        values = [value for value in inputs if value not in self._constants]
        tables = [tuple(self._constants[value].dims) for value in inputs if value in self._constants]
        return (values[0], tables[0]) if len(values) == len(tables) == 1 else ("", ())

    def _before_swap(self, name: str) -> str:
        """Return the tensor whose halves ``name`` has in reverse order; "" for any other form."""
        concat = self._producer(name, "Concat")
        split = self._producer(concat.input[0], "Split") if concat is not None and len(concat.input) == 2 else None
        if concat is None or split is None or list(concat.input[::-1]) != list(split.output):
            return ""
        axes = {a.i for node in (concat, split) for a in node.attribute if a.name == "axis"}
        return self._past_casts(split.input[0]) if axes <= {-1, 3} and axes else ""

    def _joined(self, name: str) -> tuple[onnx.NodeProto, tuple[int, ...]] | None:
        """Return the Reshape that joins the heads of ``name``, and its 3-D shape; None if it has another form."""
        transpose = self._user(name, "Transpose")
        if transpose is None or list(transpose.attribute[0].ints) != _SPLIT:
            return None
        reshape = self._user(transpose.output[0], "Reshape")
        shape = self._shape(reshape)
        return (reshape, shape) if reshape is not None and len(shape) == 3 else None

    def _producer(self, name: str, op: str) -> onnx.NodeProto | None:
        node = self._producers.get(self._past_casts(name))
        return node if node is not None and node.op_type == op else None

    def _past_casts(self, name: str) -> str:
        """The value before any Casts among float types."""
        while (node := self._producers.get(name)) is not None and _is_cast(node):
            name = node.input[0]
        return name

    def _user(self, name: str, op: str) -> onnx.NodeProto | None:
        """Return the only user of a value, ignoring Casts among float types."""
        users = self._users.get(name, [])
        while len(users) == 1 and _is_cast(users[0]):
            users = self._users.get(users[0].output[0], [])
        return users[0] if len(users) == 1 and users[0].op_type == op else None

    def _shape(self, reshape: onnx.NodeProto | None) -> tuple[int, ...]:
        """Return the target of a Reshape, or () if it is not a constant."""
        tensor = self._constants.get(reshape.input[1]) if reshape is not None else None
        return () if tensor is None else tuple(int(d) for d in numpy_helper.to_array(tensor))

    def _scaled(self, name: str) -> tuple[str, float | None]:
        """The value before a multiplication and the factor: 1 without one, None if not a constant scalar."""
        multiply = self._producer(name, "Mul")
        return (name, 1.0) if multiply is None else (multiply.input[0], self._scalar(multiply.input[1]))

    def _scalar(self, name: str) -> float | None:
        tensor = self._constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) != 1:
            return None
        return float(numpy_helper.to_array(tensor).reshape(()))


def _is_cast(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i in _FLOATS

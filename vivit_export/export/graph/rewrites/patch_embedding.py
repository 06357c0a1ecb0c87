"""Rewrite the tubelet embedding as one GEMM, with all its constants folded into one addition.

A convolution whose stride is its kernel cuts the clip into tubelets and multiplies each by one matrix
(ViViT, arXiv:2103.15691, section 3.2)::

    (B, T, 3, H, W) -> (B, tokens, t h w 3) @ (t h w 3, hidden)

Its bias, the position embeddings and the class token, if there are any, are constants: a row of zeros is inserted
before the tokens for the class, and one array (1, tokens + 1, hidden) is added. A later stack of blocks with a class
token of its own has the latter alone. Without positions (V-JEPA 2 rotates Q and K by them), all tokens get the bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vivit_export.export.graph.rewrites.attention_block import Linear
from vivit_export.export.graph.rewrites.declined import Decline, ignore
from vivit_export.export.graph.rewrites.nodes import (
    Float64,
    TypedTape,
    array_of,
    double_of,
    module_path,
    new_constant,
    replace_constant,
)

_PATCHES = "embeddings.patch_embeddings"  # end of the module path of what holds the convolution
CHANNELS_LAST = (0, 1, 3, 4, 2)
# How the axes (batch, frames, t, rows, h, columns, w, channels) of a clip that was cut are sorted into tokens and what
# is inside each: tokens in order of time, or all of a place in a row.
_BY_TIME = (0, 1, 3, 5, 2, 4, 6, 7)
_BY_PLACE = (0, 3, 5, 1, 2, 4, 6, 7)


def lower_patch_embedding(model: ir.Model, decline: Decline = ignore) -> int:
    """Replace the convolution and all nodes up to the position embeddings; return 1 if it was found."""
    done = []
    for node in [node for node in model.graph if node.op_type == "Add"]:
        found = _find_embedding(node)
        if found is not None:
            _replace(model.graph, node, found)
            done.append(found.conv)
    for node in [node for node in model.graph if node.op_type == "Transpose"]:
        made = _find_conv(node.outputs[0])
        if made is not None and made[0] not in done:
            _replace(model.graph, node, _Embedding(node.outputs[0], None, None, *made))
            done.append(made[0])
    for conv in [node for node in model.graph if node.op_type == "Conv" and node not in done]:
        decline(conv, _obstacle(conv) or "the nodes around it are not a tubelet embedding")
    return sum(conv is not None for conv in done)


def fold_pixels(model: ir.Model, table: npt.NDArray[np.float32]) -> int:
    """Let the embedding take ``(v - 128) / 64`` instead of the normalized pixel; return 1 if that was possible.

    The processor's arithmetic is affine in the 8-bit level v, x = a v + o per channel, so with
    y = (v - 128) / 64, x = 64 a y + (128 a + o): the factor goes into the weight, the rest into the
    constant. y is exact in fp16 and bf16, unlike x.

    Args:
        model: after `lower_patch_embedding`; changed in place.
        table: float32 (3, 256), the normalized pixel of each level and channel.

    `vivit_export.export.graph.pixels.prepend_pixels` is the other half, which computes y.
    """
    found = [n for n in model.graph if n.op_type == "MatMul" and _PATCHES in str(n.name)]
    if not found:
        return 0
    linear = Linear(found[0], None)
    reader = next(use.node for use in found[0].outputs[0].uses())
    padded = reader.op_type == "Pad"
    add = next(use.node for use in reader.outputs[0].uses()) if padded else reader
    slope = (table[:, 255].astype(np.float64) - table[:, 0]) / 255
    offset = table[:, 0].astype(np.float64)
    weight = linear.weight  # rows run over (t, h, w, channel)
    per_row = np.tile(slope, len(weight) // 3)
    shift = np.tile(128 * slope + offset, len(weight) // 3) @ weight
    constant = double_of(add.inputs[1])
    constant[:, int(padded) :] += shift
    linear.set_weight((64 * per_row)[:, None] * weight)
    replace_constant(add, 1, constant)
    return 1


@dataclass(frozen=True)
class _Embedding:
    """What puts positions on tokens.

    Attributes:
        tokens: (rows, tokens, hidden), before class token and positions.
        positions: constant (1, tokens, hidden), the class token's included; None: there are none.
        class_token: constant (1, 1, hidden); None: there is none.
        conv: what makes the tokens of pixels; None: something else does.
        order: how the axes of a clip that was cut are sorted.
    """

    tokens: ir.Value
    positions: ir.Value | None
    class_token: ir.Value | None = None
    conv: ir.Node | None = None
    order: tuple[int, ...] = _BY_TIME


def _find_embedding(add: ir.Node) -> _Embedding | None:
    """Return the embedding that ends in an Add, or None."""
    constants = [value for value in add.inputs if value is not None and value.const_value is not None]
    others = [value for value in add.inputs if value is not None and value.const_value is None]
    if len(constants) != 1 or len(others) != 1 or constants[0].shape is None or len(constants[0].shape) != 3:
        return None
    (positions,), (tokens,) = constants, others
    class_token = None
    concat = tokens.producer()
    if concat is not None and concat.op_type == "Concat" and len(concat.inputs) == 2:
        expand, rest = concat.inputs
        first = expand.producer() if expand is not None else None
        token = first.inputs[0] if first is not None and first.op_type == "Expand" else None
        if token is None or token.const_value is None or rest is None or concat.attributes.get_int("axis", 0) != 1:
            return None
        class_token, tokens = token, rest
    count, hidden = tokens.shape[1:] if tokens.shape is not None and len(tokens.shape) == 3 else (None, None)
    if not isinstance(count, int) or list(positions.shape or ()) != [1, count + (class_token is not None), hidden]:
        return None
    found = _find_conv(tokens)
    if found is None:
        return None if class_token is None else _Embedding(tokens, positions, class_token)
    return _Embedding(tokens, positions, class_token, *found)


def _find_conv(tokens: ir.Value) -> tuple[ir.Node, tuple[int, ...]] | None:
    """Return the convolution that makes tokens of pixels, and the order of these tokens; None: there is none."""
    last = tokens.producer()
    flat = last.inputs[0] if last is not None and last.op_type == "Reshape" else tokens
    transpose = flat.producer() if flat is not None else None
    if transpose is None or transpose.op_type != "Transpose":
        return None
    perm, source = list(transpose.attributes["perm"].as_ints()), transpose.inputs[0]
    before = source.producer() if source is not None else None
    if perm == [0, 2, 1] and before is not None and before.op_type == "Reshape":
        order, source = _BY_TIME, before.inputs[0]
    elif perm == [0, 3, 4, 2, 1]:
        order = _BY_PLACE
    else:
        return None
    conv = source.producer() if source is not None else None
    if conv is None or conv.op_type != "Conv" or _obstacle(conv) is not None or tokens.shape is None:
        return None
    # A Reshape may count tokens anew, but must leave each whole.
    return (conv, order) if tokens.shape[-1] == len(double_of(conv.inputs[1])) else None


def _obstacle(conv: ir.Node) -> str | None:
    """Return why this is not a plain embedding: constants, a stride equal to the kernel, no padding, a fixed size."""
    if any(value is None or value.const_value is None for value in conv.inputs[1:]) or len(conv.inputs) != 3:
        return "its weights are not constant"
    kernel = double_of(conv.inputs[1])
    wanted = {"strides": list(kernel.shape[2:]), "pads": [0] * 6, "dilations": [1] * 3}
    plain = all(
        name in conv.attributes and list(conv.attributes[name].as_ints()) == value for name, value in wanted.items()
    )
    if kernel.ndim != 5 or not plain:
        return "its tubelets overlap, or are padded: the stride is not the kernel"
    source = conv.inputs[0].producer() if conv.inputs[0] is not None else None
    swap = source.attributes["perm"].as_ints() if source is not None and source.op_type == "Transpose" else ()
    shape = source.inputs[0].shape if source is not None and source.inputs[0] is not None else None
    if list(swap) != [0, 2, 1, 3, 4] or shape is None or not all(isinstance(d, int) for d in shape[1:]):
        return "the size of its input is not fixed"
    return None


def _replace(graph: ir.Graph, last: ir.Node, found: _Embedding) -> None:
    path, tape = module_path(last) or "embeddings", TypedTape()
    tokens, hidden = (int(d) for d in last.outputs[0].shape[1:])  # type: ignore[index, arg-type]
    constant = np.zeros((1, 1, hidden)) if found.positions is None else double_of(found.positions).copy()
    dtype = array_of(found.positions if found.conv is None else found.conv.inputs[1]).dtype

    def chain(op: str, value: ir.Value, where: str, *constants: npt.NDArray[Any], **attributes: Any) -> ir.Value:
        operands = [new_constant(graph, f"{where}.{i}", constant) for i, constant in enumerate(constants, 1)]
        return tape.add(op, [value, *operands], f"{where}/{op}", value.dtype, **attributes)

    value, padded = found.tokens, found.class_token is not None
    if padded:
        constant[:, :1] += double_of(found.class_token)
    if found.conv is not None:
        pixels, bias, weight = _pixels(found.conv), double_of(found.conv.inputs[2]), _matrix(found.conv)
        where = module_path(found.conv)
        constant[:, int(padded) :] += bias
        # Channels last, like uint8 frames: before those, this transpose is removed again.
        value = chain("Transpose", pixels, f"{where}.layout", perm=CHANNELS_LAST)
        value = chain("Reshape", value, f"{where}.cut", np.array(_cut(found.conv, pixels), np.int64))
        value = chain("Transpose", value, f"{where}.cut", perm=found.order)
        shape = np.array([-1, tokens - padded, len(weight)], np.int64)
        value = chain("Reshape", value, f"{where}.join", shape)
        value = chain("MatMul", value, where, weight.astype(dtype))
    if padded:
        value = chain("Pad", value, f"{path}.class", np.array([0, 1, 0, 0, 0, 0], np.int64), np.zeros((), dtype))
    value = chain("Add", value, path, constant.astype(dtype))
    value.shape = last.outputs[0].shape
    tape.insert_before(last)
    ir.convenience.replace_all_uses_with(last.outputs[0], value)
    graph.remove(last, safe=True)


def _matrix(conv: ir.Node) -> Float64:
    """Return the kernel as (t h w 3, hidden)."""
    kernel = double_of(conv.inputs[1])  # (hidden, channels, t, h, w)
    return kernel.transpose(2, 3, 4, 1, 0).reshape(-1, len(kernel))


def _pixels(conv: ir.Node) -> ir.Value:
    """Return the pixels (B, T, 3, H, W) that a convolution without an `_obstacle` reads, transposed."""
    source = conv.inputs[0].producer() if conv.inputs[0] is not None else None
    assert source is not None and source.inputs[0] is not None
    return source.inputs[0]


def _cut(conv: ir.Node, pixels: ir.Value) -> list[int]:
    """Return the shape of a clip that is cut into tubelets."""
    assert pixels.shape is not None
    _, channels, t, h, w = double_of(conv.inputs[1]).shape
    _, num_frames, _, height, width = (d if isinstance(d, int) else -1 for d in pixels.shape)
    return [-1, num_frames // t, t, height // h, h, width // w, w, channels]

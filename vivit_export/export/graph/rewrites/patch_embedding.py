"""Rewrite the tubelet embedding as one GEMM, with all its constants folded into one addition.

A convolution whose stride is its kernel cuts the clip into tubelets and multiplies each by one matrix
(ViViT, arXiv:2103.15691, section 3.2)::

    (B, T, 3, H, W) -> (B, tokens, t h w 3) @ (t h w 3, hidden)

Its bias, the position embeddings and the class token are constants: a row of zeros is inserted before the
tokens for the class, and one array (1, tokens + 1, hidden) is added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxscript.rewriter import pattern

from vivit_export.export.graph.rewrites.attention_block import Linear
from vivit_export.export.graph.rewrites.declined import Decline, ignore
from vivit_export.export.graph.rewrites.nodes import Float64, TypedTape, double_of, new_constant, replace_constant

PATH = "embeddings.patch_embeddings.projection"
CHANNELS_LAST = (0, 1, 3, 4, 2)


def lower_patch_embedding(model: ir.Model, decline: Decline = ignore) -> int:
    """Replace the convolution and all nodes up to the position embeddings; return 1 if it was found."""
    reason = "the nodes around it are not a tubelet embedding with a class token and positions"
    for node in list(model.graph):
        if node.op_type != "Add":
            continue
        match = _EMBEDDING.match(model, model.graph, node, check_nodes_are_removable=False)
        if not match:
            continue
        obstacle = _obstacle(match.bindings)
        if obstacle is None:
            _replace(model, node, match.bindings)
            return 1
        reason = obstacle
    for conv in model.graph:
        if conv.op_type == "Conv":
            decline(conv, reason)
    return 0


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
    found = [n for n in model.graph if n.name == f"{PATH}/MatMul"]
    if not found:
        return 0
    linear = Linear(found[0], None)
    add = next(use.node for use in _padded(found[0]).uses())
    slope = (table[:, 255].astype(np.float64) - table[:, 0]) / 255
    offset = table[:, 0].astype(np.float64)
    weight = linear.weight  # rows run over (t, h, w, channel)
    per_row = np.tile(slope, len(weight) // 3)
    shift = np.tile(128 * slope + offset, len(weight) // 3) @ weight
    constant = double_of(add.inputs[1])
    constant[:, 1:] += shift
    linear.set_weight((64 * per_row)[:, None] * weight)
    replace_constant(add, 1, constant)
    return 1


def _padded(matmul: ir.Node) -> ir.Value:
    return next(use.node for use in matmul.outputs[0].uses()).outputs[0]


def _embedding(op: Any, pixels: Any, kernel: Any, bias: Any, flat: Any, cls: Any, shape: Any, positions: Any) -> Any:
    grid = op.Conv(op.Transpose(pixels, perm=[0, 2, 1, 3, 4]), kernel, bias, _outputs=["grid"])
    tokens = op.Transpose(op.Reshape(grid, flat), perm=[0, 2, 1])
    return op.Add(op.Concat(op.Expand(cls, shape), tokens, axis=1), positions)


_EMBEDDING = pattern.Pattern(_embedding)


def _obstacle(bindings: Any) -> str | None:
    """Return why this is no plain embedding: constants, and a convolution with stride = kernel and no padding."""
    if any(bindings[name].const_value is None for name in ("kernel", "bias", "cls", "positions")):
        return "its weights, the class token or the positions are not constant"
    attributes = bindings["grid"].producer().attributes
    wanted = {"strides": list(bindings["kernel"].const_value.shape)[2:], "pads": [0] * 6, "dilations": [1] * 3}
    plain = all(name in attributes and list(attributes[name].as_ints()) == value for name, value in wanted.items())
    if not plain:
        return "its tubelets overlap, or are padded: the stride is not the kernel"
    shape = bindings["pixels"].shape
    fixed = shape is not None and all(isinstance(d, int) for d in shape[1:])
    return None if fixed else "the size of its input is not fixed"


def _replace(model: ir.Model, last: ir.Node, bindings: Any) -> None:
    graph, pixels, dtype = model.graph, bindings["pixels"], bindings["kernel"].const_value.numpy().dtype
    kernel = double_of(bindings["kernel"])  # (hidden, channels, t, h, w)
    hidden, channels, t, h, w = kernel.shape
    _, num_frames, _, height, width = (d if isinstance(d, int) else -1 for d in pixels.shape)
    counts = (num_frames // t, height // h, width // w)
    tokens = counts[0] * counts[1] * counts[2]
    weight = kernel.transpose(2, 3, 4, 1, 0).reshape(-1, hidden)

    tape = TypedTape()

    def chain(op: str, value: ir.Value, where: str, *constants: npt.NDArray[Any], **attributes: Any) -> ir.Value:
        operands = [new_constant(graph, f"{where}.{i}", constant) for i, constant in enumerate(constants, 1)]
        return tape.add(op, [value, *operands], f"{where}/{op}", pixels.dtype, **attributes)

    # Channels last, like uint8 frames: before those, this transpose is removed again.
    value = chain("Transpose", pixels, f"{PATH}.layout", perm=CHANNELS_LAST)
    cut = np.array([-1, counts[0], t, counts[1], h, counts[2], w, channels], np.int64)
    value = chain("Reshape", value, f"{PATH}.cut", cut)
    value = chain("Transpose", value, f"{PATH}.cut", perm=(0, 1, 3, 5, 2, 4, 6, 7))
    value = chain("Reshape", value, f"{PATH}.join", np.array([-1, tokens, len(weight)], np.int64))
    value = chain("MatMul", value, PATH, weight.astype(dtype))
    value = chain("Pad", value, "embeddings.class", np.array([0, 1, 0, 0, 0, 0], np.int64), np.zeros((), dtype))
    value = chain("Add", value, "embeddings", _constants(bindings).astype(dtype))
    value.shape = last.outputs[0].shape
    tape.insert_before(last)
    ir.convenience.replace_all_uses_with(last.outputs[0], value)


def _constants(bindings: Any) -> Float64:
    """Return class token, position embeddings and the convolution's bias as one (1, tokens + 1, hidden) array."""
    constant = double_of(bindings["positions"]).copy()
    constant[:, :1] += double_of(bindings["cls"])
    constant[:, 1:] += double_of(bindings["bias"])
    return constant

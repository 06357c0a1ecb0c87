"""The weights of a scenic network under the names, and in the layouts, that PyTorch's has.

Flax multiplies a row vector by a kernel (in, out); PyTorch's Linear stores (out, in). An attention's kernels have heads
and sizes as dimensions of their own, in the order in which PyTorch's rows have them. A tubelet's kernel is (t, h, w, 3,
hidden) in Flax and (hidden, 3, t, h, w) in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vivit_export.families.scenic.network import Kind, ScenicNetwork, Stack, block_names

Array = npt.NDArray[np.generic]

_JOINT = {
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "out": "attention.output.dense",
    "Dense_0": "intermediate.dense",
    "Dense_1": "output.dense",
}
_FACTORISED = {
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "o_proj",
    "Dense_0": "fc1",
    "Dense_1": "fc2",
}
# Of each attention, and of its LayerNorm; the last LayerNorm is the MLP's.
_ATTENTIONS: dict[Kind, tuple[str, ...]] = {
    "encoder": ("attention",),
    "dot_product": ("attention",),
    "self_attention": ("temporal_attention", "spatial_attention"),
}
_NORMS: dict[Kind, tuple[str, ...]] = {
    "self_attention": ("temporal_layernorm", "spatial_layernorm", "layernorm_after"),
}
_PLAIN_NORMS = ("layernorm_before", "layernorm_after")


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of the PyTorch network.

    Attributes:
        name: its name there.
        source: the parameter's name in scenic.
        shape: its shape.
        of: makes it of the parameter.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    of: Callable[[Array], Array]


def weights_of(network: ScenicNetwork, classes: range) -> Iterator[Weight]:
    """Yield every weight of the PyTorch network.

    Args:
        network: scenic's.
        classes: the logits to keep.
    """
    d, (t, h, w) = network.hidden, network.tubelet
    at = "vivit.embeddings"
    projection = f"{at}.patch_embeddings.projection"
    yield Weight(f"{projection}.weight", "embedding/kernel", (d, 3, t, h, w), lambda x: x.transpose(4, 3, 0, 1, 2))
    yield _same(f"{projection}.bias", "embedding/bias", (d,))
    for stack in network.stacks:
        yield from _stack(network, stack)
    kept = slice(classes.start, classes.stop)
    yield Weight("classifier.weight", "output_projection/kernel", (len(classes), d), lambda x: np.transpose(x)[kept])
    yield Weight("classifier.bias", "output_projection/bias", (len(classes),), lambda x: x[kept])


def _stack(network: ScenicNetwork, stack: Stack) -> Iterator[Weight]:
    kind, d = network.kind, network.hidden
    # (of the class token and positions, of the blocks, of the last LayerNorm)
    where = {
        "Transformer": ("vivit.embeddings", "vivit.encoder.layer" if kind == "joint" else "vivit.layers", "vivit"),
        "SpatialTransformer": ("vivit.embeddings", "vivit.spatial.layers", "vivit.spatial"),
        "TemporalTransformer": ("vivit.temporal.embeddings", "vivit.temporal.layers", "vivit.temporal"),
    }
    tokens, blocks, end = where[stack.name]
    if stack.cls:
        yield _same(f"{tokens}.cls_token", stack.cls, (1, 1, d))
    table = f"{stack.name}/posembed_input/pos_embedding"
    yield _same(f"{tokens}.position_embeddings", table, (1, stack.positions, d))
    for i in range(stack.layers):
        yield from _block(network, stack, f"{blocks}.{i}", f"{stack.name}/encoderblock_{i}")
    yield from _norm(f"{end}.layernorm", f"{stack.name}/encoder_norm", d)


def _block(network: ScenicNetwork, stack: Stack, target: str, source: str) -> Iterator[Weight]:
    kind, d = network.kind, network.hidden
    theirs = block_names(kind)
    for norm, name in zip(_NORMS.get(kind, _PLAIN_NORMS), theirs.norms, strict=True):
        yield from _norm(f"{target}.{norm}", f"{source}/{name}", d)
    for ours, name in zip(_ATTENTIONS.get(kind, ("",)), theirs.attentions, strict=True):
        for part in ("query", "key", "value", "out"):
            whole = f"{target}.{_JOINT[part]}" if kind == "joint" else f"{target}.{ours}.{_FACTORISED[part]}"
            yield from _linear(whole, f"{source}/{name}/{part}", (d, d))
    for part, shape in (("Dense_0", (stack.inner, d)), ("Dense_1", (d, stack.inner))):
        whole = f"{target}.{_JOINT[part]}" if kind == "joint" else f"{target}.mlp.{_FACTORISED[part]}"
        yield from _linear(whole, f"{source}/{theirs.mlp}/{part}", shape)


def _norm(target: str, source: str, size: int) -> Iterator[Weight]:
    yield _same(f"{target}.weight", f"{source}/scale", (size,))
    yield _same(f"{target}.bias", f"{source}/bias", (size,))


def _linear(target: str, source: str, shape: tuple[int, int]) -> Iterator[Weight]:
    outs, ins = shape
    yield Weight(f"{target}.weight", f"{source}/kernel", shape, lambda x: x.reshape(ins, outs).transpose())
    yield Weight(f"{target}.bias", f"{source}/bias", (outs,), lambda x: x.reshape(outs))


def _same(target: str, source: str, shape: tuple[int, ...]) -> Weight:
    return Weight(target, source, shape, lambda x: x)

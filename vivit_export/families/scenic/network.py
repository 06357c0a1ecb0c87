"""What kind of ViViT a tree of scenic's parameters is: everything is read from names and shapes.

The four kinds are those of the paper (arXiv:2103.15691) in its order. A tree must hold exactly the parameters that a
network of its kind has, in shapes that fit each other; anything else is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from vivit_export.errors import CheckpointError, counted, option
from vivit_export.families.scenic.flax_file import Node, StoredArray, Tree
from vivit_export.limits import MOST_FRAMES, MOST_SIDE, MOST_WIDTH
from vivit_export.records import shown

Kind = Literal["joint", "encoder", "self_attention", "dot_product"]
"""Models 1 to 4: joint attention, factorised encoder, factorised self-attention, factorised dot product."""

TITLES: Mapping[Kind, str] = {
    "joint": "ViViT with joint attention",
    "encoder": "ViViT with a factorised encoder",
    "self_attention": "ViViT with factorised self-attention",
    "dot_product": "ViViT with factorised dot-product attention",
}
CROP = 224
"""Pixels of a side of what all of scenic's configurations crop."""

Parameters = dict[str, StoredArray]


@dataclass(frozen=True, slots=True)
class Stack:
    """A row of encoder blocks.

    Attributes:
        name: scenic's, such as ``SpatialTransformer``.
        cls: name of its class token; None if it has none.
        layers: number of blocks.
        heads: attention heads.
        inner: width inside the MLPs.
        positions: entries of the position table, with that of the class token.
    """

    name: str
    cls: str | None
    layers: int
    heads: int
    inner: int
    positions: int

    @property
    def tokens(self) -> int:
        """Tokens without the class token."""
        return self.positions - (self.cls is not None)


@dataclass(frozen=True, slots=True)
class ScenicNetwork:
    """A network that scenic trained.

    Attributes:
        kind: which of the four.
        hidden: width of a token.
        tubelet: (frames, rows, columns) of a tubelet.
        stacks: one, or the spatial and the temporal one.
        classes: number of logits.
    """

    kind: Kind
    hidden: int
    tubelet: tuple[int, int, int]
    stacks: tuple[Stack, ...]
    classes: int

    def clip(self, num_frames: int | None) -> tuple[int, int, int]:
        """Return the frames, rows and columns of a clip that the position tables fit.

        Args:
            num_frames: the frames, if they are known. A factorised encoder's tables say them; any other table only says
                frames times places, and `CROP` pixels are taken for a side if that fits.

        Raises:
            CheckpointError: no clip fits.
        """
        t, h, w = self.tubelet
        if self.kind == "encoder":
            steps, places = self.stacks[1].tokens, self.stacks[0].tokens
            if num_frames not in (None, steps * t):
                raise CheckpointError(
                    f"{option('num_frames', num_frames)} does not fit: the temporal position table is for {steps * t} "
                    "frames; leave it out"
                )
        elif num_frames is None:
            tokens, places = self.stacks[0].tokens, (CROP // h) * (CROP // w)
            if CROP % h or CROP % w or tokens % places:
                raise CheckpointError(
                    f"the position table has {tokens} tokens, which may be few frames of many pixels or many of few; "
                    f"give {option('num_frames')}: the frames of a clip"
                )
            steps = tokens // places
        else:
            steps, places = num_frames // t, self.stacks[0].tokens // max(num_frames // t, 1)
            if num_frames % t or steps * places != self.stacks[0].tokens:
                raise CheckpointError(
                    f"{option('num_frames', num_frames)} does not fit: the position table has "
                    f"{self.stacks[0].tokens} tokens, and a tubelet {counted(t, 'frames')}"
                )
        side = math.isqrt(places)
        if side * side != places:
            raise CheckpointError(f"the position table is for {places} tokens of a frame, which is not a square number")
        if steps * t > MOST_FRAMES or side * max(h, w) > MOST_SIDE:
            raise CheckpointError(
                f"the position tables are for {steps * t} frames of {side * h} x {side * w} pixels; at most "
                f"{MOST_FRAMES} and {MOST_SIDE} are possible"
            )
        return steps * t, side * h, side * w

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the name and the shape of every parameter of such a network."""
        t, h, w = self.tubelet
        yield from (("embedding/kernel", (t, h, w, 3, self.hidden)), ("embedding/bias", (self.hidden,)))
        for stack in self.stacks:
            if stack.cls:
                yield stack.cls, (1, 1, self.hidden)
            yield f"{stack.name}/posembed_input/pos_embedding", (1, stack.positions, self.hidden)
            for i in range(stack.layers):
                yield from ((f"{stack.name}/encoderblock_{i}/{name}", shape) for name, shape in self._block(stack))
            yield from ((f"{stack.name}/encoder_norm/{name}", (self.hidden,)) for name in ("scale", "bias"))
        yield "output_projection/kernel", (self.hidden, self.classes)
        yield "output_projection/bias", (self.classes,)

    def _block(self, stack: Stack) -> Iterator[tuple[str, tuple[int, ...]]]:
        d, heads, size = self.hidden, stack.heads, self.hidden // stack.heads
        names = block_names(self.kind)
        for norm in names.norms:
            yield from ((f"{norm}/scale", (d,)), (f"{norm}/bias", (d,)))
        for attention in names.attentions:
            for projection in ("query", "key", "value"):
                yield f"{attention}/{projection}/kernel", (d, heads, size)
                yield f"{attention}/{projection}/bias", (heads, size)
            yield from ((f"{attention}/out/kernel", (heads, size, d)), (f"{attention}/out/bias", (d,)))
        for dense, ins, outs in (("Dense_0", d, stack.inner), ("Dense_1", stack.inner, d)):
            yield from ((f"{names.mlp}/{dense}/kernel", (ins, outs)), (f"{names.mlp}/{dense}/bias", (outs,)))


@dataclass(frozen=True, slots=True)
class BlockNames:
    """Scenic's names for the parts of a block.

    Attributes:
        attentions: in order.
        norms: before each attention, and before the MLP.
        mlp: the MLP.
    """

    attentions: tuple[str, ...]
    norms: tuple[str, ...]
    mlp: str


def block_names(kind: Kind) -> BlockNames:
    """Return the names in a block of a kind."""
    if kind == "self_attention":
        attentions = ("MultiHeadDotProductAttention_time", "MultiHeadDotProductAttention_space")
        return BlockNames(attentions, ("LayerNorm_time", "LayerNorm_space", "LayerNorm_mlp"), "MlpBlock")
    return BlockNames(("MultiHeadDotProductAttention_0",), ("LayerNorm_0", "LayerNorm_1"), "MlpBlock_0")


def parameters_of(tree: Tree) -> Parameters:
    """Return the parameters in a checkpoint by name, parts of a name joined by ``/``.

    Args:
        tree: of the file: a training state with its parameters under ``optimizer/target``, as older versions
            of scenic wrote it, or ``params``; either may have them under another ``params``.

    Raises:
        CheckpointError: there are none, or more than one set of them, or a leaf that is not an array.
    """
    optimizer = tree.get("optimizer")
    places = {
        "optimizer/target": optimizer.get("target") if isinstance(optimizer, dict) else None,
        "params": tree.get("params"),
    }
    found = {place: inner for place, inner in places.items() if isinstance(inner, dict) and inner}
    if len(found) != 1:
        has = " and ".join(found) if found else _listed(tree)
        wanted = "one of them" if found else "a training state of scenic has optimizer/target or params"
        raise CheckpointError(f"the checkpoint holds {has}, but {wanted} is needed")
    ((place, inner),) = found.items()
    if set(inner) == {"params"} and isinstance(inner["params"], dict):
        place, inner = f"{place}/params", inner["params"]
    return dict(_leaves(inner, place, ""))


def _leaves(tree: Tree, place: str, before: str) -> Iterator[tuple[str, StoredArray]]:
    for name, node in tree.items():
        path = f"{before}{name}"
        if isinstance(node, dict):
            yield from _leaves(node, place, f"{path}/")
        elif isinstance(node, StoredArray):
            yield path, node
        else:
            raise CheckpointError(f"{shown(f'{place}/{path}')} is not an array of numbers, but {shown(node)}")


def recognize(parameters: Parameters) -> ScenicNetwork:
    """Return the network whose parameters these are.

    Raises:
        CheckpointError: they do not belong to a ViViT, or are not exactly those of one; the message names the first
            that is missing, left over, or of another shape than the others imply.
    """
    kind = _kind(parameters)
    t, h, w, channels, hidden = _shape(parameters, "embedding/kernel", 5)
    if channels != 3:
        raise CheckpointError(f"embedding/kernel takes {channels} channels; only RGB models (3) are supported")
    names = ("SpatialTransformer", "TemporalTransformer") if kind == "encoder" else ("Transformer",)
    stacks = tuple(_stack(parameters, kind, name) for name in names)
    classes = _shape(parameters, "output_projection/kernel", 2)[1]
    for stack in stacks:
        if hidden % stack.heads:
            raise CheckpointError(f"{stack.name} has {stack.heads} heads, which do not divide a width of {hidden}")
    if kind == "dot_product" and stacks[0].heads % 2:
        raise CheckpointError(
            f"Transformer has {stacks[0].heads} heads and no class token; half of them would attend over time"
        )
    network = ScenicNetwork(kind, hidden, (t, h, w), stacks, classes)
    _require_exactly(parameters, network)
    return network


def _kind(parameters: Parameters) -> Kind:
    if any(name.startswith("SpatialTransformer/") for name in parameters):
        return "encoder"
    if "Transformer/encoderblock_0/MultiHeadDotProductAttention_time/query/kernel" in parameters:
        return "self_attention"
    if any(name.startswith("Transformer/") for name in parameters):
        return "joint" if "cls" in parameters else "dot_product"
    tops = {name.partition("/")[0]: None for name in parameters}
    raise CheckpointError(f"the parameters do not belong to a ViViT: they are {_listed(tops)}")


def _stack(parameters: Parameters, kind: Kind, name: str) -> Stack:
    block, names = f"{name}/encoderblock_0", block_names(kind)
    begins = f"{name}/encoderblock_"
    layers = len({found[len(begins) :].partition("/")[0] for found in parameters if found.startswith(begins)})
    cls = {"joint": "cls", "encoder": f"cls_{name}"}.get(kind)
    return Stack(
        name=name,
        cls=cls,
        layers=layers,
        heads=_shape(parameters, f"{block}/{names.attentions[0]}/query/kernel", 3)[1],
        inner=_shape(parameters, f"{block}/{names.mlp}/Dense_0/kernel", 2)[1],
        positions=_shape(parameters, f"{name}/posembed_input/pos_embedding", 3)[1],
    )


def _shape(parameters: Parameters, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in parameters:
        raise CheckpointError(f"the checkpoint has no parameter {name}{_hint(name)}")
    shape = parameters[name].shape
    # A position table may be longer than a width; its rows become tokens, whose number `clip` limits.
    most = 1 << 24 if name.endswith("pos_embedding") else MOST_WIDTH
    if len(shape) != dimensions or not all(1 <= size <= most for size in shape):
        raise CheckpointError(f"{name} has shape {shape}; {dimensions} sizes from 1 to {most} are needed")
    return shape


def _require_exactly(parameters: Parameters, network: ScenicNetwork) -> None:
    known: set[str] = set()
    for name, shape in network.shapes():
        known.add(name)
        if name not in parameters:
            raise CheckpointError(f"the checkpoint has no parameter {name}{_hint(name)}")
        if parameters[name].shape != shape:
            raise CheckpointError(
                f"{name} has shape {parameters[name].shape}, but the other parameters imply {shape}; they belong to "
                "different networks"
            )
        if parameters[name].dtype not in _FLOATS:
            raise CheckpointError(f"{name} is stored as {parameters[name].dtype}; floats are needed")
    left = next((name for name in parameters if name not in known), None)
    if left is not None:
        raise CheckpointError(
            f"the checkpoint has a parameter {shown(left)}, for which a {TITLES[network.kind]} has no place"
            f"{_hint(left)}; without it, it would be another network"
        )


_FLOATS = ("bfloat16", "float16", "float32", "float64")
_HINTS = {
    "posembed_input": "positions without parameters (sinusoidal ones) are not supported",
    "cls_": "a factorised encoder without class tokens does not say how it pools; it is not supported",
    "TemporalTransformer": "the baseline without a temporal encoder is not supported",
    "output_projection": "the network needs its classifier",
    "pre_logits": "a layer before the classifier (representation_size) is not supported",
}


def _hint(name: str) -> str:
    found = next((hint for part, hint in _HINTS.items() if part in name), None)
    return f" ({found})" if found else ""


def _listed(names: Mapping[str, Node]) -> str:
    """Return some names for a message."""
    few = [shown(name) for name in list(names)[:5]]
    return ", ".join(few) + (" and others" if len(names) > 5 else "") if few else "nothing"

"""The anatomy of a network: where its blocks are, what attends to what, and how much it computes.

A family (`vivit_export.families`) works it out from the config once, it is stored in ``bundle.json``, and plan proof,
calibration, quantization, block drift and reports read it there, so that none of them counts layers of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vivit_export.errors import InputError

Pooling = Literal["class-token", "mean", "attention"]
"""How the embedding is made of the last tokens: the class token, their mean, or what a learned query attends to."""

_MOST = (1 << 31) - 1

EMBEDDINGS = "embeddings"
"""Part of the module path of whatever turns pixels into tokens, in every family."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention of a block.

    Attributes:
        path: its module path inside the block, such as ``attention``.
        tokens: how many tokens attend to each other.
        sequences: how many such sequences a clip has: 1 if all its tokens attend to each other.
    """

    path: str
    tokens: int
    sequences: int = 1

    def __post_init__(self) -> None:
        _require_counts(tokens=self.tokens, sequences=self.sequences)


@dataclass(frozen=True, slots=True)
class Stack:
    """Encoder blocks in a row that all have one form; each attention and each MLP has a LayerNormalization before it.

    Attributes:
        path: module path of their list, such as ``layers``; block 3 is then ``layers.3``.
        blocks: how many there are.
        attentions: those of a block, in order.
        linears: Linears of a block; Q, K and V count as three.
        shared: whether its attentions have one set of projections and one LayerNormalization, and each a part of the
            heads.
    """

    path: str
    blocks: int
    attentions: tuple[Attention, ...]
    linears: int
    shared: bool = False

    def __post_init__(self) -> None:
        _require_counts(blocks=self.blocks, linears=self.linears, attentions=len(self.attentions))

    @property
    def projected(self) -> int:
        """How many times a block projects tokens to Q, K and V, each time after a LayerNormalization."""
        return 1 if self.shared else len(self.attentions)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What a network is made of.

    Attributes:
        stacks: encoder blocks, in order.
        heads: attention heads.
        tokens: tokens of a clip that a block holds at once, at most.
        pooling: how the embedding is made of the last tokens.
        flops: multiplications and additions of the encoder's products for one clip.
    """

    stacks: tuple[Stack, ...]
    heads: int
    tokens: int
    pooling: Pooling
    flops: int

    def __post_init__(self) -> None:
        _require_counts(stacks=len(self.stacks), heads=self.heads, tokens=self.tokens)

    @property
    def num_blocks(self) -> int:
        """Number of encoder blocks."""
        return sum(stack.blocks for stack in self.stacks)

    @property
    def num_attentions(self) -> int:
        """Number of attentions."""
        return sum(stack.blocks * len(stack.attentions) for stack in self.stacks)

    @property
    def num_linears(self) -> int:
        """Number of Linears in the blocks; Q, K and V count as three."""
        return sum(stack.blocks * stack.linears for stack in self.stacks)

    @property
    def num_gemms(self) -> int:
        """The fewest products with weights that an engine runs for the blocks: Q, K and V in one."""
        return self.num_linears - 2 * self._num_projected

    @property
    def num_norms(self) -> int:
        """Number of LayerNormalizations in the blocks: one before each attention, and one before each MLP."""
        return self._num_projected + self.num_blocks

    @property
    def num_pairs(self) -> int:
        """Number of Linears of the blocks that only follow another Linear: none of attention's, and not the MLP's."""
        return self.num_linears - 4 * self._num_projected - 2 * self.num_blocks

    @property
    def _num_projected(self) -> int:
        return sum(stack.blocks * stack.projected for stack in self.stacks)

    @property
    def scores_bytes(self) -> int:
        """Bytes of the largest attention's scores for one clip, in float32, if they are written to memory."""
        attentions = [attention for stack in self.stacks for attention in stack.attentions]
        return 4 * self.heads * max(a.sequences * a.tokens**2 for a in attentions)

    def in_block(self, name: str) -> bool:
        """Return whether a node or a module path is inside an encoder block."""
        return any(
            name.startswith(f"{stack.path}.") and name[len(stack.path) + 1 :][:1].isdigit() for stack in self.stacks
        )

    def in_encoder(self, name: str) -> bool:
        """Return whether a node is inside an encoder block, or makes tokens of pixels."""
        return self.in_block(name) or EMBEDDINGS in name.partition("/")[0].split(".")


def block_flops(
    *, rows: int, hidden: int, inner: int, attentions: tuple[Attention, ...], extra: int = 0, shared: bool = False
) -> int:
    """Return the multiplications and additions of a block's products for one clip.

    Args:
        rows: tokens that pass through its Linears.
        hidden: width of a token.
        inner: width inside the MLP.
        attentions: its attentions; each has Q, K, V and an output projection.
        extra: Linears of hidden x hidden besides.
        shared: see `Stack.shared`; each attention then has an equal part of the heads.
    """
    squares = 4 * (1 if shared else len(attentions)) + extra
    width = hidden // len(attentions) if shared else hidden
    products = sum(2 * a.sequences * a.tokens**2 * width for a in attentions)
    return 2 * (rows * (squares * hidden**2 + 2 * hidden * inner) + products)


def _require_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not 1 <= count <= _MOST:
            limit = "1 or more" if count < 1 else f"at most {_MOST}"
            raise InputError(f"anatomy: {name}={count} is not {limit}")

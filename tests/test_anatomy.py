"""The anatomy of a network: what its records count, and what they refuse."""

from __future__ import annotations

import pytest
from anatomies import vivit

from vivit_export.anatomy import Anatomy, Attention, Stack
from vivit_export.errors import InputError


def test_the_anatomy_of_vivit_b() -> None:
    """Figures of the paper's ViViT-B/16x2: 3137 tokens, 0.90e12 operations."""
    found = vivit(12)
    assert (found.tokens, found.num_blocks, found.num_attentions, found.heads) == (3137, 12, 12, 12)
    assert (found.num_linears, found.num_gemms, found.num_norms) == (72, 48, 24)
    assert round(found.flops / 1e12, 2) == 0.90
    assert found.scores_bytes == 12 * 3137**2 * 4


def test_attentions_that_share_their_projections_count_once() -> None:
    """Two attentions of half the heads each: Q, K and V in one product, one output projection, one norm before."""
    attentions = (Attention("attention.a", 4, 6), Attention("attention.b", 6, 4))
    found = Anatomy((Stack("layers", 3, attentions, linears=6, shared=True),), 2, 24, "mean", 1)
    assert (found.num_attentions, found.num_linears, found.num_gemms, found.num_norms) == (6, 18, 12, 6)
    own = Anatomy((Stack("layers", 3, attentions, linears=10),), 2, 24, "mean", 1)
    assert (own.num_attentions, own.num_linears, own.num_gemms, own.num_norms) == (6, 30, 18, 9)


def test_names_are_inside_a_block_or_before_it() -> None:
    found = vivit(12)
    assert found.in_block("layers.11.mlp.fc1/MatMul")
    assert found.in_block("layers.0.attention.q_proj")
    assert not any(map(found.in_block, ("layers", "layers.x", "layernorm", "other.layers.0.mlp", "classifier/MatMul")))
    assert found.in_encoder("embeddings/Add")
    assert found.in_encoder("embeddings.patch_embeddings.projection/MatMul")
    assert found.in_encoder("layers.3.mlp.fc1/MatMul")
    assert not any(map(found.in_encoder, ("layernorm/LayerNormalization", "classifier/MatMul", "embedding/Cast")))


@pytest.mark.parametrize(
    ("stacks", "heads", "said"),
    [
        ((), 2, "anatomy: stacks=0 is not 1 or more"),
        ((Stack("layers", 2, (Attention("attention", 5),), 6),), 0, "anatomy: heads=0 is not 1 or more"),
    ],
)
def test_nothing_is_made_of_nothing(stacks: tuple[Stack, ...], heads: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Anatomy(stacks, heads, 5, "class-token", 1)


@pytest.mark.parametrize(
    ("blocks", "attentions", "tokens", "said"),
    [
        (0, 1, 5, "anatomy: blocks=0 is not 1 or more"),
        (2, 0, 5, "anatomy: attentions=0 is not 1 or more"),
        (2, 1, 0, "anatomy: tokens=0 is not 1 or more"),
        (1 << 31, 1, 5, "anatomy: blocks=2147483648 is not at most 2147483647"),
    ],
)
def test_a_stack_has_blocks_with_attention(blocks: int, attentions: int, tokens: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Stack("layers", blocks, (Attention("attention", tokens),) * attentions, 6)

"""What a tree of parameters is: kind, sizes and clip from names and shapes; anything else is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import scenic_trees

from vivit_export.errors import CheckpointError
from vivit_export.families.scenic.flax_file import StoredArray
from vivit_export.families.scenic.network import Parameters, ScenicNetwork, Stack, parameters_of, recognize

K400 = "SpatialTransformer", "TemporalTransformer"


def stored(*shape: int, dtype: str = "float32") -> StoredArray:
    return StoredArray(shape, dtype, ((0, 0),))


def parameters(kind: str) -> Parameters:
    """The small trees of the recording, as a file has them."""
    return {name: stored(*array.shape) for name, array in scenic_trees.flat_parameters(kind).items()}


def of(network: ScenicNetwork) -> Parameters:
    return {name: stored(*shape) for name, shape in network.shapes()}


@pytest.mark.parametrize("kind", scenic_trees.KINDS)
def test_each_kind_is_recognized_by_its_names_and_shapes(kind: str) -> None:
    found = recognize(parameters(kind))
    assert (found.kind, found.hidden, found.tubelet, found.classes) == (kind, 64, (2, 8, 8), 7)
    cls = {"joint": "cls", "encoder": "cls_SpatialTransformer"}.get(kind)
    first = Stack(
        "SpatialTransformer" if kind == "encoder" else "Transformer", cls, 3, 4, 128, found.stacks[0].positions
    )
    second = Stack("TemporalTransformer", "cls_TemporalTransformer", 2, 4, 128, 5)
    assert found.stacks == ((first, second) if kind == "encoder" else (first,))
    assert found.clip(None if kind == "encoder" else 8) == (8, 32, 32)


@pytest.mark.parametrize(
    ("hidden", "heads", "layers", "temporal"), [(768, 12, 12, 4), (1024, 16, 24, 4), (1024, 16, 24, 24)]
)
def test_published_factorised_encoders_say_everything(hidden: int, heads: int, layers: int, temporal: int) -> None:
    stacks = tuple(
        Stack(name, f"cls_{name}", blocks, heads, 4 * hidden, positions)
        for name, blocks, positions in zip(K400, (layers, temporal), (197, 17), strict=True)
    )
    network = ScenicNetwork("encoder", hidden, (2, 16, 16), stacks, 400)
    assert recognize(of(network)) == network
    assert network.clip(None) == network.clip(32) == (32, 224, 224)
    with pytest.raises(
        CheckpointError, match="num_frames=16 does not fit: the temporal position table is for 32 frames"
    ):
        network.clip(16)


def joint(positions: int, cls: str | None = "cls", tubelet: tuple[int, int, int] = (2, 16, 16)) -> ScenicNetwork:
    stack = Stack("Transformer", cls, 12, 12, 3072, positions)
    return ScenicNetwork("joint" if cls else "dot_product", 768, tubelet, (stack,), 400)


@pytest.mark.parametrize("network", [joint(3137), joint(3136, cls=None)], ids=lambda n: str(n.kind))
def test_a_table_for_224_pixels_is_taken_for_that(network: ScenicNetwork) -> None:
    assert recognize(of(network)) == network
    assert network.clip(None) == (32, 224, 224)
    assert network.clip(128) == (128, 112, 112)
    with pytest.raises(CheckpointError, match="num_frames=30 does not fit: the position table has 3136 tokens"):
        network.clip(30)


def test_a_table_that_leaves_a_choice_needs_the_frames() -> None:
    with pytest.raises(
        CheckpointError, match=r"the position table has 64 tokens, which may be few frames .* num_frames"
    ):
        joint(65).clip(None)
    assert joint(65).clip(8) == (8, 64, 64)
    with pytest.raises(CheckpointError, match="for 32 tokens of a frame, which is not a square number"):
        joint(65).clip(4)
    with pytest.raises(CheckpointError, match="num_frames=0 does not fit"):
        joint(65).clip(0)
    with pytest.raises(CheckpointError, match="at most 1024 and 4096 are possible"):
        joint(65537, tubelet=(16, 16, 16)).clip(65536 * 16)


Change = Callable[[Parameters], object]


def leaving_out(name: str) -> Change:
    return lambda tree: tree.pop(name)


def with_shape(name: str, *shape: int, dtype: str = "float32") -> Change:
    return lambda tree: tree.update({name: stored(*shape, dtype=dtype)})


BLOCK = "Transformer/encoderblock_1"
ATTENTION = f"{BLOCK}/MultiHeadDotProductAttention_0"
WRONG: dict[str, tuple[str, Change, str]] = {
    "a bias is missing": ("joint", leaving_out(f"{ATTENTION}/query/bias"), f"no parameter {ATTENTION}/query/bias"),
    "a block is missing": (
        "joint", lambda t: [t.pop(n) for n in list(t) if n.startswith(BLOCK)],
        f"no parameter {BLOCK}/LayerNorm_0/scale",
    ),
    "other heads in a block": (
        "joint", with_shape(f"{ATTENTION}/query/kernel", 64, 8, 8),
        r"has shape \(64, 8, 8\), but .* imply \(64, 4, 16\)",
    ),
    "another width": (
        "encoder", with_shape("cls_TemporalTransformer", 1, 1, 32), r"shape \(1, 1, 32\), but .* \(1, 1, 64"
    ),
    "heads that do not divide": (
        "joint", with_shape("Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel", 64, 5, 12),
        "Transformer has 5 heads, which do not divide a width of 64",
    ),
    "three heads over two axes": (
        "dot_product", with_shape("Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel", 64, 1, 64),
        "Transformer has 1 heads and no class token",
    ),
    "frames without depth": (
        "joint", with_shape("embedding/kernel", 8, 8, 3, 64), "embedding/kernel has shape .* 5 sizes"
    ),
    "grey clips": ("joint", with_shape("embedding/kernel", 2, 8, 8, 1, 64), "takes 1 channels; only RGB"),
    "no size": ("joint", with_shape("embedding/kernel", 2, 8, 8, 3, 0), "5 sizes from 1 to 65536 are needed"),
    "a representation layer": ("joint", with_shape("pre_logits/kernel", 64, 64), "representation_size"),
    "an unknown parameter": (
        "joint", with_shape("Transformer/extra", 3), "'Transformer/extra', for which a ViViT with joint"
    ),
    "sinusoidal positions": ("joint", leaving_out("Transformer/posembed_input/pos_embedding"), "sinusoidal"),
    "no temporal encoder": (
        "encoder", lambda t: [t.pop(n) for n in list(t) if "Temporal" in n], "baseline without a temporal encoder"
    ),
    "a mean in the encoder": ("encoder", leaving_out("cls_SpatialTransformer"), "does not say how it pools"),
    "no classifier": ("joint", leaving_out("output_projection/kernel"), "needs its classifier"),
    "whole numbers": ("joint", with_shape("cls", 1, 1, 64, dtype="int32"), "cls is stored as int32; floats are needed"),
    "another network": (
        "joint", lambda t: [t.pop(n) for n in list(t)] and t.update(w=stored(2)), "do not belong to a ViViT: they are"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_tree_that_is_not_exactly_a_network_is_refused_by_name(name: str) -> None:
    kind, change, told = WRONG[name]
    tree = parameters(kind)
    change(tree)
    with pytest.raises(CheckpointError, match=told):
        recognize(tree)


LEAF = stored(2)


@pytest.mark.parametrize(
    "tree",
    [
        {"optimizer": {"target": {"a": {"b": LEAF}}, "state": {}}, "global_step": 1},
        {"optimizer": {"target": {"params": {"a": {"b": LEAF}}}}, "params": None},
        {"params": {"a": {"b": LEAF}}, "opt_state": {"0": {"a": LEAF}}, "metadata": None},
        {"params": {"params": {"a": {"b": LEAF}}}, "optimizer": None},
    ],
    ids=["an optimizer", "its parameters named", "a newer training state", "its parameters named twice"],
)
def test_parameters_are_found_in_old_and_new_training_states(tree: dict[str, Any]) -> None:
    assert parameters_of(tree) == {"a/b": LEAF}


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        (
            {"embedding": {}, "cls": LEAF},
            "holds 'embedding', 'cls', but a training state of scenic has optimizer/target",
        ),
        ({"optimizer": {"state": {"a": LEAF}}}, "holds 'optimizer', but"),
        (
            {"optimizer": {"target": {"a": LEAF}}, "params": {"a": LEAF}},
            "holds optimizer/target and params, but one of",
        ),
        ({"params": {}}, "holds 'params', but"),
        ({}, "holds nothing, but"),
        ({"params": {"a": {"b": 3.5}}}, "'params/a/b' is not an array of numbers, but 3.5"),
        ({str(i): LEAF for i in range(9)}, "'4' and others, but"),
    ],
)
def test_other_containers_are_refused_by_name(tree: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        parameters_of(tree)

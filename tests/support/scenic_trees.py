"""Parameters of scenic's ViViT in four kinds, the logits that its own Flax modules gave for them, and Flax's files.

The logits were recorded once with scenic at 4a38d47 and Flax in float64 (``tests/data/scenic.json``). All numbers come
from one seed, in the order in which the recording drew them: the clips, and then the parameters of models 1 to 4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Tree = dict[str, Any]

KINDS = ("joint", "encoder", "self_attention", "dot_product")
RECORDED = Path(__file__).parents[1] / "data/scenic.json"
FRAMES, SIDE, TUBELET, HIDDEN, HEADS, INNER, CLASSES = 8, 32, (2, 8, 8), 64, 4, 128, 7
LAYERS = {"Transformer": 3, "SpatialTransformer": 3, "TemporalTransformer": 2}


def recorded_logits(kind: str) -> Float64:
    """(2, 7): what Flax gave for `clips`."""
    return np.array(json.loads(RECORDED.read_text())[kind])


def clips() -> Float64:
    """(2, 8, 32, 32, 3), as scenic takes them."""
    return _drawn()[0]


def flat_parameters(kind: str) -> dict[str, Float64]:
    """Parameters by name, parts of a name joined by ``/``; not to be changed."""
    return _drawn()[1][kind]


def tree_of(flat: Mapping[str, Any]) -> Tree:
    """The same as dictionaries in each other."""
    tree: Tree = {}
    for name, array in flat.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = array
    return tree


def flax_bytes(tree: Any, chunk: int = 1 << 30) -> bytes:
    """Serialize as ``flax.serialization.msgpack_serialize`` does; arrays of more than ``chunk`` bytes in pieces."""
    packed: bytes = msgpack.packb(_chunked(tree, chunk), default=_extension, strict_types=True)
    return packed


def _chunked(node: Any, chunk: int) -> Any:
    if isinstance(node, dict):
        return {name: _chunked(inner, chunk) for name, inner in node.items()}
    if isinstance(node, list):
        return [_chunked(inner, chunk) for inner in node]
    if not isinstance(node, np.ndarray) or node.nbytes <= chunk or not node.size:
        return node
    flat, step = node.reshape(-1), max(1, chunk // node.itemsize)
    pieces = [flat[i : i + step] for i in range(0, flat.size, step)]
    as_dict = {"shape": dict(enumerate_names(node.shape)), "chunks": dict(enumerate_names(pieces))}
    return {"__msgpack_chunked_array__": True, **as_dict}


def enumerate_names(values: Any) -> Iterator[tuple[str, Any]]:
    """A tuple as Flax stores it: a dictionary by number."""
    return ((str(i), value) for i, value in enumerate(values))


def _extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(1, _array(value))
    if isinstance(value, np.generic):
        return msgpack.ExtType(3, _array(np.asarray(value)))
    if isinstance(value, complex):
        return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))
    raise TypeError(type(value))


def _array(array: npt.NDArray[Any]) -> bytes:
    packed: bytes = msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)
    return packed


@cache
def _drawn() -> tuple[Float64, dict[str, dict[str, Float64]]]:
    random = np.random.default_rng(0)
    x = random.standard_normal((2, FRAMES, SIDE, SIDE, 3))
    return x, {kind: {name: _draw(random, name, shape) for name, shape in _shapes(kind)} for kind in KINDS}


def _draw(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> Float64:
    normal = random.standard_normal(shape)
    if name.endswith("/scale"):
        return 1 + 0.3 * normal
    return normal * np.prod(shape) ** -0.25 if len(shape) > 1 else 0.3 * normal


def _shapes(kind: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    steps, places = FRAMES // TUBELET[0], (SIDE // TUBELET[1]) ** 2
    yield from (("embedding/kernel", (*TUBELET, 3, HIDDEN)), ("embedding/bias", (HIDDEN,)))
    if kind == "encoder":
        stacks = [("cls_SpatialTransformer", "SpatialTransformer", places + 1)]
        stacks.append(("cls_TemporalTransformer", "TemporalTransformer", steps + 1))
    else:
        stacks = [("cls", "Transformer", steps * places + (kind == "joint"))]
    for cls, stack, positions in stacks:
        if kind in ("joint", "encoder"):
            yield cls, (1, 1, HIDDEN)
        yield f"{stack}/posembed_input/pos_embedding", (1, positions, HIDDEN)
        for i in range(LAYERS[stack]):
            yield from ((f"{stack}/encoderblock_{i}/{name}", shape) for name, shape in _block(kind))
        yield from _norm(f"{stack}/encoder_norm")
    yield from (("output_projection/kernel", (HIDDEN, CLASSES)), ("output_projection/bias", (CLASSES,)))


def _block(kind: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    parts = [("0", "0")] if kind != "self_attention" else [("time", "time"), ("space", "space")]
    for norm, attention in parts:
        yield from _norm(f"LayerNorm_{norm}")
        for name in ("query", "key", "value"):
            at = f"MultiHeadDotProductAttention_{attention}/{name}"
            yield from ((f"{at}/kernel", (HIDDEN, HEADS, HIDDEN // HEADS)), (f"{at}/bias", (HEADS, HIDDEN // HEADS)))
        at = f"MultiHeadDotProductAttention_{attention}/out"
        yield from ((f"{at}/kernel", (HEADS, HIDDEN // HEADS, HIDDEN)), (f"{at}/bias", (HIDDEN,)))
    last, mlp = ("LayerNorm_mlp", "MlpBlock") if kind == "self_attention" else ("LayerNorm_1", "MlpBlock_0")
    yield from _norm(last)
    for dense, ins, outs in (("Dense_0", HIDDEN, INNER), ("Dense_1", INNER, HIDDEN)):
        yield from ((f"{mlp}/{dense}/kernel", (ins, outs)), (f"{mlp}/{dense}/bias", (outs,)))


def _norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}/scale", (HIDDEN,)), (f"{name}/bias", (HIDDEN,)))

"""Hostile checkpoints of scenic, converted: one sentence, little memory and time, and nothing is written."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import scenic_trees
from attacked import within_limits

from vivit_export.errors import CheckpointError
from vivit_export.export.convert import convert_scenic


def packed(value: Any) -> bytes:
    made: bytes = msgpack.packb(value)
    return made


def array(shape: Any, dtype: Any = "float32", data: bytes = b"") -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, data), use_bin_type=True))


def network(**changes: Any) -> bytes:
    """A whole factorised encoder, with some parameters changed, added, or (with None) left out."""
    flat: dict[str, Any] = {**scenic_trees.flat_parameters("encoder"), **changes}
    tree = scenic_trees.tree_of({name: value for name, value in flat.items() if value is not None})
    return scenic_trees.flax_bytes({"params": tree})


def claiming(name: str, *shape: int) -> bytes:
    """A network one of whose parameters has a shape of more numbers than there are bytes for."""
    whole = network()
    found = scenic_trees.flat_parameters("encoder")[name]
    before = msgpack.packb(found.shape)
    at = whole.index(before + msgpack.packb("float64"), whole.index(name.rpartition("/")[2].encode()))
    return whole[:at] + packed(shape)[: len(before)] + whole[at + len(before) :]


HALF = len(network()) // 2
TABLE = "SpatialTransformer/posembed_input/pos_embedding"
HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": bytes,
    "half a file": lambda: network()[:HALF],
    "a file without its last byte": lambda: network()[:-1],
    "a file twice": lambda: network() * 2,
    "zeros": lambda: bytes(1 << 20),
    "0xc1, which msgpack never uses": lambda: b"\xc1" * 1000,
    "4 billion names": lambda: b"\xdf\xff\xff\xff\xff" + b"\xa1a\x01" * 1000,
    "4 billion names in each other": lambda: b"\xdf\xff\xff\xff\xff\xa1a" * 100_000,
    "100,000 lists in each other": lambda: b"\x81\xa1a" + b"\x91" * 100_000 + b"\x01",
    "100,000 extensions in each other": lambda: b"\x81\xa1a" + b"\xd8\x02" * 100_000 + b"\x01" * 16,
    "a list of 4 billion": lambda: b"\x81\xa1a\xdd\xff\xff\xff\xff" + b"\x01" * 1000,
    "a text of 4 GB": lambda: b"\x81\xa1a\xdb\xff\xff\xff\xff" + b"x" * 1000,
    "an extension of 4 GB": lambda: b"\x81\xa1a\xc9\xff\xff\xff\xff\x01" + b"x" * 1000,
    "a name of 2 MB": lambda: packed({"x" * (2 << 20): 1}),
    "5 MB of names": lambda: packed({str(i) * 50: i for i in range(20_000)}),
    "10 million values": lambda: packed({"a": [0] * 10_000_000}),
    "names that no terminal shows": lambda: packed({"params": {"\x1b[2J\n": array((1,), data=bytes(4))}}),
    "an array of 10^15 numbers": lambda: packed({"a": array((10**5, 10**5, 10**5), data=bytes(8))}),
    "an array of 0 times 10^12": lambda: network(cls_SpatialTransformer=np.zeros((0, 1, 64))),
    "an array of objects": lambda: packed({"a": array((1,), "object", b"cos\nsystem\n")}),
    "an array of structures": lambda: packed({"a": array((1,), "f4,(2,)i8", bytes(20))}),
    "a shape with a sign": lambda: packed({"a": array((-1, -4), data=bytes(16))}),
    "a shape of 1,000 ones": lambda: packed({"a": array((1,) * 1000, data=bytes(4))}),
    "a shape of numbers with points": lambda: packed({"a": array((1.0,), data=bytes(4))}),
    "chunks of chunks": lambda: packed(
        {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": {"0": {"0": array((1,), data=b"1234")}}}}
    ),
    "a pickle": lambda: b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
    "safetensors": lambda: struct.pack("<Q", 2) + b"{}",
    "a table of more tokens than are stored": lambda: claiming(TABLE, 1, 127, 64),
    "1,000 blocks of one bias": lambda: network(
        **{f"SpatialTransformer/encoderblock_{i}/LayerNorm_0/bias": np.zeros(64) for i in range(1000)}
    ),
    "20,000 blocks of nothing but a name": lambda: network(
        **{f"SpatialTransformer/encoderblock_x{i}/y": np.zeros(1) for i in range(20_000)}
    ),
    "a kernel that is a scalar": lambda: network(**{"embedding/kernel": np.float64(1)}),
    "a kernel that is text": lambda: network(**{"embedding/kernel": "../../etc/passwd"}),
    "no heads": lambda: network(
        **{"SpatialTransformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel": np.zeros((64, 0, 16))}
    ),
    "no classes": lambda: network(
        **{"output_projection/kernel": np.zeros((64, 0)), "output_projection/bias": np.zeros(0)}
    ),
    "infinite weights": lambda: network(cls_SpatialTransformer=np.full((1, 1, 64), np.inf)),
    "a number beside the parameters": lambda: network(extra=5),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(HOSTILE[name]())
    with within_limits(), pytest.raises(CheckpointError) as refused:
        convert_scenic(path, tmp_path / "out")
    told = str(refused.value)
    assert len(told) < 1000 and "\n" not in told and "\x1b" not in told
    assert [found.name for found in tmp_path.iterdir()] == ["checkpoint"]


def test_the_network_that_was_changed_is_taken_unchanged(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(network())
    convert_scenic(tmp_path / "checkpoint", tmp_path / "out")


@pytest.mark.parametrize("byte", range(0, 4000, 61))
def test_a_changed_byte_is_refused_or_means_nothing(tmp_path: Path, byte: int) -> None:
    """In the part with the first names, shapes and arrays: whatever comes of it, it is a folder or a sentence."""
    data = bytearray(network())
    data[byte] ^= 0xFF
    (tmp_path / "checkpoint").write_bytes(data)
    try:
        convert_scenic(tmp_path / "checkpoint", tmp_path / "out")
    except CheckpointError as e:
        told = str(e)
    else:
        told = ""
    assert "\n" not in told and (tmp_path / "out").exists() == (not told)


def test_a_file_without_an_end_is_not_waited_for(tmp_path: Path) -> None:
    with within_limits(), pytest.raises(CheckpointError, match="is a device, not a file"):
        convert_scenic("/dev/zero", tmp_path / "out")

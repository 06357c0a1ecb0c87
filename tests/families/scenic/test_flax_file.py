"""What Flax writes is read back as it was; what it does not write is refused in a sentence."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenic_trees import flax_bytes

from vivit_export.errors import CheckpointError
from vivit_export.families.scenic import flax_file
from vivit_export.families.scenic.flax_file import FlaxFile, StoredArray, may_be_flax

DTYPES = (
    "float64",
    "float32",
    "float16",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "bool",
)
ON_ONE_FILE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_all(file: FlaxFile, node: Any) -> Any:
    """The tree with its arrays read."""
    if isinstance(node, dict):
        return {name: read_all(file, inner) for name, inner in node.items()}
    if isinstance(node, list):
        return [read_all(file, inner) for inner in node]
    return file.read(node) if isinstance(node, StoredArray) else node


def read_back(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    with FlaxFile(path) as file:
        return read_all(file, file.tree)


def assert_same(found: Any, written: Any) -> None:
    if isinstance(written, dict):
        assert found.keys() == written.keys()
        for name in written:
            assert_same(found[name], written[name])
    elif isinstance(written, list):
        assert len(found) == len(written)
        for one, other in zip(found, written, strict=True):
            assert_same(one, other)
    elif isinstance(written, (np.ndarray, np.generic)):
        expected = np.asarray(written)
        if expected.dtype == ml_dtypes.bfloat16:
            expected = expected.astype(np.float32)
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    else:
        assert type(found) is type(written) and (found == written or written != written)


def arrays() -> st.SearchStrategy[npt.NDArray[Any]]:
    def make(dtype: str, shape: tuple[int, ...], seed: int) -> npt.NDArray[Any]:
        data = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        flat = np.frombuffer(data, np.uint8) & 1 if dtype == "bool" else np.frombuffer(data, np.dtype(dtype))
        return flat.astype(np.dtype(dtype)).reshape(shape)

    shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
    return st.builds(make, st.sampled_from((*DTYPES, "bfloat16")), shapes, st.integers(0, 1000))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    st.complex_numbers(allow_nan=False),
    st.text(max_size=300),
    st.binary(max_size=300),
    st.sampled_from([np.float32(1.5), np.int64(-3), np.bool_(True), np.uint8(7)]),
)
NAMES = st.text(max_size=40).filter(lambda name: name != "__msgpack_chunked_array__")
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        st.one_of(arrays(), SCALARS),
        lambda inner: st.one_of(st.dictionaries(NAMES, inner, max_size=20), st.lists(inner, max_size=20)),
        max_leaves=25,
    ),
    max_size=6,
)


@ON_ONE_FILE
@given(tree=TREES, chunk=st.sampled_from([1 << 30, 64, 7]))
def test_what_flax_writes_is_read_back(tmp_path: Path, tree: dict[str, Any], chunk: int) -> None:
    assert_same(read_back(tmp_path / "checkpoint", flax_bytes(tree, chunk)), tree)


@ON_ONE_FILE
@given(tree=TREES, share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, tree: dict[str, Any], share: float) -> None:
    data = flax_bytes(tree)
    with pytest.raises(CheckpointError, match=r"cut off|is empty"):
        read_back(tmp_path / "checkpoint", data[: int(share * len(data))])


@ON_ONE_FILE
@given(data=st.binary(max_size=200).map(lambda data: b"\x81\xa1a" + data))
def test_any_bytes_are_read_as_msgpack_reads_them_or_refused(tmp_path: Path, data: bytes) -> None:
    try:
        found = read_back(tmp_path / "checkpoint", data)
    except CheckpointError as e:
        told = str(e)
    else:
        told = ""
        assert_same(found, msgpack.unpackb(data, strict_map_key=True))
    assert "\n" not in told and len(told) < 600


def test_old_versions_of_flax_wrote_the_type_as_bytes(tmp_path: Path) -> None:
    inner = msgpack.packb(((2,), b"float32", np.ones(2, np.float32).tobytes()), use_bin_type=True)
    data = msgpack.packb({"a": msgpack.ExtType(1, inner)})
    assert_same(read_back(tmp_path / "checkpoint", data), {"a": np.ones(2, np.float32)})


def test_arrays_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    """The state of an optimizer is as large as the network; here it is a hole of 3 GiB that only a seek passes."""
    size = 3 << 30
    array = struct.pack(">BI", 0xC6, size)  # the bytes of the array, which follow
    inner = b"\x93" + msgpack.packb([size]) + msgpack.packb("uint8") + array
    begin = b"\x82" + msgpack.packb("state") + struct.pack(">BIb", 0xC9, len(inner) + size, 1) + inner
    path = tmp_path / "checkpoint"
    with path.open("wb") as file:
        file.write(begin)
        file.seek(len(begin) + size)
        file.write(msgpack.packb("step") + msgpack.packb(5))
    with FlaxFile(path) as found:
        assert found.tree["state"] == StoredArray((size,), "uint8", ((len(begin), size),))
        assert found.tree["step"] == 5


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(flax_bytes({"a": np.zeros(100_000)}))
    with FlaxFile(path) as file:
        path.write_bytes(path.read_bytes()[:1000])
        array = file.tree["a"]
        assert isinstance(array, StoredArray)
        with pytest.raises(CheckpointError, match="was changed while it was read"):
            file.read(array)


@pytest.mark.parametrize(
    ("data", "may"),
    [
        (flax_bytes({"params": {}}), True),
        (flax_bytes({"x" * 40: 1}), True),
        (flax_bytes({str(i): i for i in range(16)}), True),
        (flax_bytes({str(i): i for i in range(70_000)}), True),
        (flax_bytes({}), False),
        (b"\x80\x04\x95" + bytes(20), False),  # a pickle
        (struct.pack("<Q", 80) + b"{}", False),  # safetensors
        (b"hello", False),
        (b"", False),
        (b"\xde\x00", False),
    ],
)
def test_the_beginning_tells_what_a_file_may_be(tmp_path: Path, data: bytes, may: bool) -> None:
    (tmp_path / "file").write_bytes(data)
    assert may_be_flax(tmp_path / "file") == may
    assert not may_be_flax(tmp_path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder; give the file in it"):
        FlaxFile(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        FlaxFile(tmp_path / "none")


def array(shape: Any = (2,), dtype: Any = "float32", data: Any = bytes(8), kind: int = 1, more: bytes = b"") -> Any:
    return msgpack.ExtType(kind, msgpack.packb((shape, dtype, data), use_bin_type=True) + more)


def chunked(**fields: Any) -> dict[str, Any]:
    whole = {"__msgpack_chunked_array__": True, "shape": {"0": 4}, "chunks": {"0": array(), "1": array()}}
    return {name: value for name, value in {**whole, **fields}.items() if value is not ...}


def nested(levels: int) -> Any:
    tree: Any = 1
    for _ in range(levels):
        tree = {"a": tree}
    return tree


MALFORMED: dict[str, tuple[Any, str]] = {
    "no names": ([1, 2], "it holds no names"),
    "a number for a name": ({1: 2}, "holds a name that is not text"),
    "an unknown extension": ({"a": msgpack.ExtType(9, b"")}, "'a' is an extension of type 9"),
    "an array of objects": ({"a": array(dtype="object")}, "'a' is an array of the type 'object'"),
    "a negative size": ({"a": array(shape=(-2,))}, r"'a' is an array whose shape is \[-2\]"),
    "a size that is text": ({"a": array(shape=("2",))}, "'a' is an array whose shape is"),
    "a shape that is a number": ({"a": array(shape=2)}, "'a' is an array whose shape is 2"),
    "100 dimensions": ({"a": array(shape=(1,) * 100)}, "'a' is an array whose shape is"),
    "fewer bytes than numbers": ({"a": array(shape=(1 << 39,))}, "but 8 bytes; it is no such array"),
    "bytes after an array": ({"a": array(more=b"\0")}, "'a' has 22 bytes, but does not end with them"),
    "an array of text": ({"a": array(data="x")}, "'a' is an array without bytes"),
    "an array of two parts": ({"a": msgpack.ExtType(1, msgpack.packb([1, 2]))}, "without shape, type and bytes"),
    "a scalar with a shape": ({"a": array(kind=3)}, r"'a' is a scalar of shape \(2,\)"),
    "half a complex number": ({"a": msgpack.ExtType(2, msgpack.packb([1.0]))}, "'a' is a complex number without two"),
    "chunks without a shape": ({"a": chunked(shape=...)}, "'a' is an array in pieces, but not with"),
    "chunks of two types": ({"a": chunked(chunks={"0": array(), "1": array(dtype="int32")})}, "pieces of one type"),
    "a chunk that is missing": ({"a": chunked(chunks={"0": array()})}, "but 8 bytes; it is no such array"),
    "chunks that begin with 1": ({"a": chunked(chunks={"1": array(), "2": array()})}, "pieces of one type"),
    "something beside chunks": ({"a": chunked(x=1)}, "'a' is an array in pieces, but not with"),
    "100 levels": (nested(100), "more than 64 levels"),
    "text of 2 MB": ({"a": "x" * 2_000_000}, "more than 1048576 bytes of text"),
    "200,000 values": ({"a": [0] * 200_000}, "more than 100000 names and values"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_flax_does_not_write_is_refused(tmp_path: Path, name: str) -> None:
    content, told = MALFORMED[name]
    with pytest.raises(CheckpointError, match=told):
        read_back(tmp_path / "checkpoint", msgpack.packb(content))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is empty"),
        (b"\x82\xa1a\x01\xa1a\x02", "'a' is there twice"),
        (b"\x81\xa1a\xc1", "0xc1, which begins nothing"),
        (b"\x81\xa1\xff\x01", "is not UTF-8"),
        (b"\x81\xa1a\x01\x00", "1 bytes follow its end"),
        (b"\xdf\xff\xff\xff\xff\xa1a\x01", "8589934590 more should follow"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "4294967295 more should follow"),
        (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01\x93", "4294967295 more should follow"),
        (b"\xd4\x02" * 5000 + b"\x01" * 10, "more than 64 levels"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"\x1f\x8b" + bytes(100), "compressed with gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\x80\x04\x95" + bytes(20), "22 bytes follow its end"),  # a pickle
    ],
)
def test_bytes_that_are_no_such_file_are_refused(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        read_back(tmp_path / "checkpoint", data)


def test_the_limits_leave_room_for_the_largest_network() -> None:
    """ViViT-L with 24 + 24 blocks of 16 arrays, in the training state three times."""
    leaves = 3 * (48 * 16 + 20)
    assert 20 * leaves < flax_file.MOST_VALUES

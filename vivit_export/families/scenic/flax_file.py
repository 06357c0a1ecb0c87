"""Read what Flax wrote with msgpack: a tree of names whose leaves are arrays.

``flax.serialization`` writes dictionaries with text for keys; an array is an extension of type 1, which holds the
shape, the name of the type and the bytes; a complex number is one of type 2, a NumPy scalar one of type 3. An array of
more than 1 GiB is a dictionary with `_CHUNKED` in it. (https://github.com/msgpack/msgpack/blob/master/spec.md)

Arrays are found, not read: a checkpoint holds the state of the optimizer too, as large as the network, which nobody
needs here. So the whole file is walked over in the time that its names take, and `FlaxFile.read` fetches one array.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from vivit_export.errors import CheckpointError
from vivit_export.files import open_regular
from vivit_export.records import shown

MOST_LEVELS = 64
"""Levels of a tree; scenic's has about ten."""
MOST_VALUES = 100_000
"""Names and leaves of a tree; ViViT-L with its optimizer has about 5,000."""
MOST_TEXT_BYTES = 1 << 20
"""Bytes of all names and texts."""
MOST_DIMENSIONS = 32

_SIZES = {"bool": 1, "bfloat16": 2, "float16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16} | {
    f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)
}
_CHUNKED = "__msgpack_chunked_array__"
_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive, as PyTorch and TensorFlow make; unpack it, and give the file named checkpoint",
    b"\x89HDF\r\n": "an HDF5 file of Keras",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"version https://git-lfs": "a pointer of Git LFS, not the checkpoint itself; run git lfs pull",
}


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file, not yet read.

    Attributes:
        shape: its shape.
        dtype: NumPy's name of its type, or ``bfloat16``.
        pieces: where its bytes are, in order: offset in the file, and how many.
    """

    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[tuple[int, int], ...]


Leaf = StoredArray | bool | int | float | complex | str | bytes | None
Tree = dict[str, "Node"]
Node = Leaf | Tree | list["Node"]


def may_be_flax(path: Path) -> bool:
    """Return whether a file begins as one of Flax does: with a dictionary, whose first key is a text."""
    try:
        with open_regular(path) as file:
            head = file.read(6)
    except OSError:
        return False
    size = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x80 < head[0] <= 0x8F else 0) if head else 0
    return 0 < size < len(head) and (0xA0 <= head[size] <= 0xBF or 0xD9 <= head[size] <= 0xDB)


class FlaxFile:
    """An open file, and the tree in it. Use it as a context.

    Args:
        path: the file.

    Attributes:
        tree: names, and what is stored under each.

    Raises:
        CheckpointError: it cannot be read, is no such file, is cut off or goes on after its end, or is larger or deeper
            than such files are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if os.path.isdir(path):
            raise CheckpointError(f"{path} is a folder; give the file in it that scenic wrote, such as checkpoint")
        try:
            self._file = open_regular(path)
        except OSError as e:
            raise CheckpointError(f"{path} cannot be read: {e.strerror or e}") from e
        try:
            self.tree = self._parse()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> FlaxFile:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, array: StoredArray) -> npt.NDArray[np.generic]:
        """Return an array; one of bfloat16 as float32, which holds the same numbers.

        Raises:
            CheckpointError: the file is no longer what it was, or cannot be read.
        """
        is_bfloat16 = array.dtype == "bfloat16"
        flat = np.empty(math.prod(array.shape), np.uint16 if is_bfloat16 else np.dtype(array.dtype))
        room, done = flat.view(np.uint8), 0
        try:
            for offset, size in array.pieces:
                self._file.seek(offset)
                data = self._file.read(size)
                if len(data) != size:
                    raise CheckpointError(f"{self.path} was changed while it was read; run again")
                room[done : done + size] = np.frombuffer(data, np.uint8)
                done += size
        except OSError as e:
            raise CheckpointError(f"{self.path} cannot be read: {e.strerror or e}") from e
        if is_bfloat16:
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(array.shape)

    def _parse(self) -> Tree:
        try:
            head = self._file.read(24)
            kind = next((what for start, what in _OTHERS.items() if head.startswith(start)), None)
            if kind is not None:
                raise CheckpointError(f"{self.path} is {kind}")
            self._file.seek(0)
            tree = _Walk(self._file).whole()
        except _MalformedError as e:
            raise CheckpointError(f"{self.path} is not a checkpoint that Flax wrote: {e}") from e
        except OSError as e:
            raise CheckpointError(f"{self.path} cannot be read: {e.strerror or e}") from e
        return tree


class _MalformedError(ValueError):
    """The bytes are not what Flax writes."""


class _Walk:
    """Goes over the file once, from its beginning to its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._at = 0
        self._values = 0
        self._text = 0

    def whole(self) -> Tree:
        if not self._size:
            raise _MalformedError("it is empty")
        tree = self._value("", 0)
        if not isinstance(tree, dict):
            raise _MalformedError("it holds no names")
        if self._at != self._size:
            raise _MalformedError(f"{self._size - self._at} bytes follow its end")
        return tree

    def _value(self, where: str, level: int) -> Node:
        self._values += 1
        if self._values > MOST_VALUES:
            raise _MalformedError(f"it has more than {MOST_VALUES} names and values")
        if level > MOST_LEVELS:
            raise _MalformedError(f"it has more than {MOST_LEVELS} levels")
        tag = self._int("B")
        if tag <= 0x7F or tag >= 0xE0:
            return tag if tag <= 0x7F else tag - 256
        if tag <= 0x8F:
            return self._map(tag & 0x0F, where, level)
        if tag <= 0x9F:
            return self._list(tag & 0x0F, where, level)
        if tag <= 0xBF:
            return self._str(tag & 0x1F)
        return self._tagged(tag, where, level)

    def _tagged(self, tag: int, where: str, level: int) -> Node:
        """Read what follows a byte that says its kind alone; its size is a number after that."""
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _NUMBERS:
            return self._number(_NUMBERS[tag])
        if tag in _FIXED_EXTENSIONS:
            return self._extension(_FIXED_EXTENSIONS[tag], where, level)
        kind, width = _SIZED.get(tag, ("", ""))
        if not kind:
            raise _MalformedError(f"byte {self._at - 1} is 0x{tag:02x}, which begins nothing")
        size = self._int(width)
        if kind == "map":
            return self._map(size, where, level)
        if kind == "list":
            return self._list(size, where, level)
        if kind == "extension":
            return self._extension(size, where, level)
        return self._str(size) if kind == "str" else self._taken_text(size)

    def _map(self, count: int, where: str, level: int) -> Node:
        self._require(2 * count)
        found: Tree = {}
        for _ in range(count):
            key = self._value(where, level + 1)
            if not isinstance(key, str):
                raise _MalformedError(f"{shown(where)} holds a name that is not text")
            if key in found:
                raise _MalformedError(f"{shown(_join(where, key))} is there twice")
            found[key] = self._value(_join(where, key), level + 1)
        return _joined(found, where) if _CHUNKED in found else found

    def _list(self, count: int, where: str, level: int) -> list[Node]:
        self._require(count)
        return [self._value(_join(where, str(i)), level + 1) for i in range(count)]

    def _str(self, size: int) -> str:
        try:
            return self._taken_text(size).decode("utf-8")
        except UnicodeDecodeError:
            raise _MalformedError(f"the text before byte {self._at} is not UTF-8") from None

    def _taken_text(self, size: int) -> bytes:
        self._text += size
        if self._text > MOST_TEXT_BYTES:
            raise _MalformedError(f"it has more than {MOST_TEXT_BYTES} bytes of text")
        return self._take(size)

    def _extension(self, size: int, where: str, level: int) -> Leaf:
        kind = self._int("b")
        self._require(size)
        end = self._at + size
        if kind == _COMPLEX:
            pair = self._value(where, level + 1)
            if not (isinstance(pair, list) and len(pair) == 2 and all(type(x) in (int, float) for x in pair)):
                raise _MalformedError(f"{shown(where)} is a complex number without two parts")
            found: Leaf = complex(*pair)  # type: ignore[arg-type]  # checked above
        elif kind in (_NDARRAY, _SCALAR):
            found = self._array(where, level)
            if kind == _SCALAR and found.shape:
                raise _MalformedError(f"{shown(where)} is a scalar of shape {found.shape}")
        else:
            raise _MalformedError(f"{shown(where)} is an extension of type {kind}, which Flax does not write")
        if self._at != end:
            raise _MalformedError(f"{shown(where)} has {size} bytes, but does not end with them")
        return found

    def _array(self, where: str, level: int) -> StoredArray:
        """Read the shape and the name of the type; go over the bytes."""
        if self._int("B") != 0x93:
            raise _MalformedError(f"{shown(where)} is an array without shape, type and bytes")
        shape, dtype = self._value(where, level + 1), self._value(where, level + 1)
        name = dtype.decode("latin-1") if isinstance(dtype, bytes) else dtype  # bytes in old versions of Flax
        if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or not all(map(_is_size, shape)):
            raise _MalformedError(f"{shown(where)} is an array whose shape is {shown(shape)}")
        if not isinstance(name, str) or name not in _SIZES:
            raise _MalformedError(f"{shown(where)} is an array of the type {shown(name)}")
        sizes = {0xC4: "B", 0xC5: "H", 0xC6: "I"}
        tag = self._int("B")
        if tag not in sizes:
            raise _MalformedError(f"{shown(where)} is an array without bytes")
        size = self._int(sizes[tag])
        found = StoredArray(tuple(int(d) for d in shape), name, ((self._at, size),))  # type: ignore[arg-type]
        _require_bytes(found, where)
        self._require(size)
        self._at += size
        self._file.seek(self._at)
        return found

    def _int(self, form: str) -> int:
        return int(self._number(form))

    def _number(self, form: str) -> int | float:
        form = f">{form}"
        number: int | float = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _take(self, size: int) -> bytes:
        self._require(size)
        data = self._file.read(size)
        if len(data) != size:
            raise _MalformedError("it became shorter while it was read")
        self._at += size
        return data

    def _require(self, size: int) -> None:
        """Refuse what would be longer than the rest of the file before anything is made of it."""
        if size > self._size - self._at:
            raise _MalformedError(
                f"it is cut off, or was never whole: at byte {self._at}, {size} more should follow, but the file has "
                f"{self._size} in all"
            )


_CONSTANTS: dict[int, bool | None] = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {0xCA: "f", 0xCB: "d"} | dict(zip(range(0xCC, 0xD4), "BHIQbhiq", strict=True))
_FIXED_EXTENSIONS = {0xD4 + i: 1 << i for i in range(5)}
_SIZED = {
    first + i: (kind, width)
    for first, kind, widths in (
        (0xC4, "bytes", "BHI"),
        (0xC7, "extension", "BHI"),
        (0xD9, "str", "BHI"),
        (0xDC, "list", "HI"),
        (0xDE, "map", "HI"),
    )
    for i, width in enumerate(widths)
}


def _join(where: str, name: str) -> str:
    return f"{where}/{name}" if where else name


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def _require_bytes(array: StoredArray, where: str) -> None:
    size = sum(size for _, size in array.pieces)
    if math.prod(array.shape) * _SIZES[array.dtype] != size:
        raise _MalformedError(
            f"{shown(where)} has shape {array.shape} and the type {array.dtype}, but {size} bytes; it is no such array"
        )


def _joined(found: Tree, where: str) -> StoredArray:
    """Return the array that is stored in pieces: ``shape`` and ``chunks`` are tuples, as Flax stores those."""
    shape, chunks = _tuple(found.get("shape")), _tuple(found.get("chunks"))
    arrays = [chunk for chunk in chunks or () if isinstance(chunk, StoredArray)]
    is_whole = found.keys() == {_CHUNKED, "shape", "chunks"} and found[_CHUNKED] is True
    if (
        not is_whole
        or shape is None
        or not all(map(_is_size, shape))
        or not arrays
        or len(arrays) != len(chunks or ())
        or len({chunk.dtype for chunk in arrays}) > 1
    ):
        raise _MalformedError(f"{shown(where)} is an array in pieces, but not with a shape and pieces of one type")
    pieces = tuple(piece for chunk in arrays for piece in chunk.pieces)
    whole = StoredArray(tuple(int(d) for d in shape), arrays[0].dtype, pieces)  # type: ignore[arg-type]
    _require_bytes(whole, where)
    return whole


def _tuple(found: Node) -> list[Node] | None:
    """Return a tuple as Flax stores it, by number; None if it is something else."""
    if not isinstance(found, dict) or set(found) != {str(i) for i in range(len(found))}:
        return None
    return [found[str(i)] for i in range(len(found))]

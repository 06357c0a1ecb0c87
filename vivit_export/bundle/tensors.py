"""Safetensors files: written, and their headers read strictly before anything is allocated for what they claim."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save_file

from vivit_export.errors import BundleError, InputError
from vivit_export.records import JsonObject, from_json, parse_json, shown

_LENGTH = struct.Struct("<Q")
_OS_ERROR = re.compile(r"(?:os error |Os \{ code: )(\d+)")  # the second as in safetensors 0.4
_MOST_HEADER_BYTES = 1 << 20  # golden clips have three tensors
_MOST_TENSORS = 16
_BYTES = {"U8": 1, "F32": 4}


def save_tensors(arrays: Mapping[str, npt.NDArray[Any]], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file.

    Raises:
        OSError: the disk refuses, which the package reports as an error of its own.
    """
    try:
        save_file(dict(arrays), path, dict(metadata) if metadata else None)
    except SafetensorError as e:
        code = _OS_ERROR.search(str(e))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from e


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """What the header says of a tensor.

    Attributes:
        dtype: type of its elements.
        shape: its shape.
        data_offsets: first byte, and the one after the last, counted from the end of the header.
    """

    dtype: Literal["U8", "F32"]
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_headers(file: BinaryIO, path: Path) -> dict[str, TensorHeader]:
    """Return what a safetensors file of uint8 and float32 tensors says of each; the tensors fill the file.

    Args:
        file: open at its beginning.
        path: what messages call it.

    Raises:
        BundleError: it is no such file; or offsets overlap, leave a gap, or do not fit the shapes.
        OSError: it cannot be read.
    """
    try:
        size = file.seek(0, SEEK_END)
        file.seek(0)
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if not 2 <= length <= min(_MOST_HEADER_BYTES, size - _LENGTH.size):
            raise ValueError(f"its header would have {length} bytes")
        headers = _parse(parse_json(file.read(length).decode("utf-8")))
        _require_dense(headers, size - _LENGTH.size - length)
    except (struct.error, ValueError, InputError) as e:
        raise BundleError(f"{path} is not a safetensors file of this kind ({e}); export the bundle again") from e
    return headers


def _parse(data: Any) -> dict[str, TensorHeader]:
    if not isinstance(data, dict):
        raise ValueError("its header is not an object")
    tensors: JsonObject = {name: told for name, told in data.items() if name != "__metadata__"}
    if len(tensors) > _MOST_TENSORS:
        raise ValueError(f"it has {len(tensors)} tensors")
    return {name: from_json(TensorHeader, told, shown(name)) for name, told in tensors.items()}


def _require_dense(headers: dict[str, TensorHeader], size: int) -> None:
    end = 0
    for name, told in sorted(headers.items(), key=lambda item: item[1].data_offsets):
        first, after = told.data_offsets
        if first != end or any(side < 0 for side in told.shape):
            raise ValueError(f"{shown(name)} begins at {first}, not at {end}, or has a negative side")
        if after - first != math.prod(told.shape) * _BYTES[told.dtype]:
            raise ValueError(f"{shown(name)} has another size than its shape {shown(list(told.shape))}")
        end = after
    if end != size:
        raise ValueError(f"its tensors end at {end}, its data at {size}")

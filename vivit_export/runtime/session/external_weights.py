"""The weights that a bundle's graph keeps in a file beside it, as the bytes that were verified.

Engines would open that file by its name, some time after it was hashed. Here it is read once: what is hashed is what
the engine gets.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from vivit_export.bundle import MODEL, Bundle
from vivit_export.errors import BundleError


@dataclass(frozen=True, slots=True)
class ExternalWeight:
    """One weight.

    Attributes:
        type: an element type of `onnx.TensorProto`.
        shape: its shape.
        data: uint8 (bytes,), its values in the order of the shape; a view of the file's bytes.
    """

    type: int
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]

    @property
    def codes(self) -> npt.NDArray[Any]:
        """Its bit patterns as unsigned integers of the type's size, in its shape; NumPy lacks some of the types."""
        size = helper.tensor_dtype_to_np_dtype(self.type).itemsize
        return self.data.view(f"u{size}").reshape(self.shape)


@dataclass(frozen=True, slots=True)
class ExternalWeights:
    """Everything that a graph keeps in other files; empty for a small model.

    Attributes:
        files: verified bytes by name of the file, as the graph names it.
        tensors: weights by name.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    tensors: Mapping[str, ExternalWeight] = field(default_factory=dict)


def load_graph(bundle: Bundle) -> onnx.ModelProto:
    """Return a bundle's graph, from verified bytes, without the weights in other files.

    Raises:
        BundleError: it was altered.
    """
    return onnx.load_model_from_string(bundle.read(MODEL))


def read_external_weights(read: Callable[[str], bytes], model: onnx.ModelProto) -> ExternalWeights:
    """Read the files that a graph refers to, each once and as a whole.

    Args:
        read: returns a file's bytes by its name: `Bundle.read` of the graph's bundle.
        model: the graph, or a part of it; weights may have been renamed, but not loaded.

    Raises:
        BundleError: a file is not listed or was altered, or a weight lies beyond its end.
    """
    files: dict[str, bytes] = {}
    tensors: dict[str, ExternalWeight] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        name = place.get("location", "")
        if name not in files:
            files[name] = read(name)
        tensors[tensor.name] = _weight(tensor, files[name], place)
    return ExternalWeights(files, tensors)


def put_inside(model: onnx.ModelProto, weights: ExternalWeights) -> None:
    """Store weights in the graph itself, in place of what it says about the files."""
    for tensor in model.graph.initializer:
        if tensor.name in weights.tensors:
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.DEFAULT
            tensor.raw_data = weights.tensors[tensor.name].data.tobytes()


def _weight(tensor: TensorProto, content: bytes, place: dict[str, str]) -> ExternalWeight:
    size = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    start = int(place.get("offset", 0))
    if int(place.get("length", size)) != size or not 0 <= start <= len(content) - size:
        raise BundleError(
            f"{MODEL} places {tensor.name} where {place['location']} does not hold it; export the bundle again"
        )
    return ExternalWeight(tensor.data_type, tuple(tensor.dims), np.frombuffer(content, np.uint8, size, start))


def return_freed_memory() -> None:
    """Return memory that was freed to the system: glibc keeps it, and loading frees a copy of all weights."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)

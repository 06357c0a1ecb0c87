"""An engine that is a graph: a made-up TensorRT runs it in ONNX Runtime, on a GPU made of NumPy.

Its plan has two graphs, and the batch from which the second one runs. With a second graph in which one block computes
wrongly, it is what a compiler makes whose plan is as promised and whose results are not.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from fake_gpu import TENSORS, Compute, FakeCuda, FakeTensorRT
from onnx import numpy_helper

_HEAD = struct.Struct("<QQ")  # batch of the second graph, bytes of the first
_NEVER = 1 << 32

# Makes a child process find the machine under the names of the real packages; see `install`.
_MODULES = {
    "cuda/__init__.py": "",
    "cuda/bindings/__init__.py": "",
    "cuda/bindings/runtime.py": "import sys, stand_in_engine\nsys.modules[__name__] = stand_in_engine.machine()[0]\n",
    "tensorrt.py": "import sys, stand_in_engine\nsys.modules[__name__] = stand_in_engine.machine()[1]\n",
}
_MACHINE: list[tuple[FakeCuda, FakeTensorRT]] = []


def damaged(graph: bytes, block: int = 2) -> bytes:
    """The graph with one block that adds its attention's results with the wrong sign: same nodes, types and shapes."""
    model = onnx.load_model_from_string(graph)
    name = f"layers.{block}.attention.o_proj.weight"
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), name))
    return bytes(model.SerializeToString())


def plan_of(graph: bytes, wrong: bytes = b"", wrong_from: int = _NEVER) -> bytes:
    """The plan of an engine that runs ``graph``, and ``wrong`` for batches of at least ``wrong_from``."""
    return _HEAD.pack(wrong_from, len(graph)) + graph + wrong


def _compute_of(plan: bytes) -> Compute:
    import onnxruntime

    wrong_from, size = _HEAD.unpack_from(plan)
    parts = (plan[_HEAD.size : _HEAD.size + size], plan[_HEAD.size + size :])
    sessions = [onnxruntime.InferenceSession(part) if part else None for part in parts]

    def compute(frames: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        session = sessions[len(frames) >= wrong_from]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {"frames": frames}), strict=True))

    return compute


class StandInTensorRT(FakeTensorRT):
    """``tensorrt`` that runs plans of `plan_of`."""

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__(cuda, TENSORS, lambda _: {})

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 - TensorRT's name
        made = super().Runtime(logger)
        deserialize = made.deserialize_cuda_engine

        def deserialize_cuda_engine(plan: bytes) -> Any:
            self._compute = _compute_of(plan)
            return deserialize(plan)

        made.deserialize_cuda_engine = deserialize_cuda_engine
        return made


def machine() -> tuple[FakeCuda, FakeTensorRT]:
    """The GPU and the TensorRT of this process."""
    if not _MACHINE:
        cuda = FakeCuda()
        _MACHINE.append((cuda, StandInTensorRT(cuda)))
    return _MACHINE[0]


def install(folder: Path) -> str:
    """Write modules that stand for a machine with a GPU, and return the PYTHONPATH of its processes."""
    for name, text in _MODULES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    package = Path(__file__).parents[2]
    return ":".join([str(folder), *(p for p in sys.path if p), str(package)])

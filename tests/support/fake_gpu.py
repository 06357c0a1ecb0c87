"""A GPU made of NumPy: enough of cuda.bindings.runtime and of TensorRT's runtime to run our session.

Work is queued on streams and done when they are synchronized, or recorded while they are captured,
so that a missing synchronization or a graph of stale addresses gives wrong results, as on a GPU.
"Device memory" is host memory that only copies and the fake engine touch. ``make`` decides what the
objects of TensorRT are: plain ones here, or ones with the real names and signatures elsewhere.
"""

# ruff: noqa: N802, N815 - the names are CUDA's and TensorRT's

from __future__ import annotations

import ctypes
import enum
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

Compute = Callable[[npt.NDArray[Any]], dict[str, npt.NDArray[np.float32]]]
Operation = Callable[[], None]


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


class FakeCuda(ModuleType):
    """``cuda.bindings.runtime``; functions return (status, value) as that does."""

    cudaStreamNonBlocking = 1
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread-local")
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76)

    def __init__(
        self, devices: int = 1, sm: int = 90, status: Status = Status.cudaSuccess, name: str = "NVIDIA H100 80GB HBM3"
    ) -> None:
        super().__init__("cuda.bindings.runtime")
        self.name = name
        self._answer = (status, devices)
        self._sm = sm
        self.calls: list[str] = []
        self.memory: dict[int, Any] = {}
        self.host: set[int] = set()
        self.queues: dict[int, list[Operation]] = {}
        self.captures: dict[int, list[Operation]] = {}
        self.graphs: dict[int, list[Operation]] = {}
        self.launched = 0
        self.budget = 1 << 30
        self._lock = threading.Lock()
        self._next = 1
        self._current = threading.local()

    def cudaGetDeviceCount(self) -> Any:
        self.calls.append("cudaGetDeviceCount")
        return self._answer

    def cudaSetDevice(self, device: int) -> Any:
        self._current.device = device
        return (Status.cudaSuccess,)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> Any:
        return Status.cudaSuccess, divmod(self._sm, 10)[attribute - 75]

    def cudaGetDeviceProperties(self, device: int) -> Any:
        return Status.cudaSuccess, SimpleNamespace(name=self.name.encode())

    def cudaDriverGetVersion(self) -> Any:
        return Status.cudaSuccess, 13000

    def _allocate(self, size: int) -> Any:
        assert hasattr(self._current, "device"), "cudaSetDevice comes first in every thread"
        with self._lock:
            self.budget -= size
            if self.budget < 0:
                return Status.cudaErrorMemoryAllocation, None
            memory = (ctypes.c_uint8 * size)(*([0xAB] * min(size, 64)))
            self.memory[ctypes.addressof(memory)] = memory
            return Status.cudaSuccess, ctypes.addressof(memory)

    def cudaMalloc(self, size: int) -> Any:
        return self._allocate(size)

    def cudaMallocHost(self, size: int) -> Any:
        status, address = self._allocate(size)
        if address is not None:
            self.host.add(address)
        return status, address

    def cudaFree(self, address: int) -> Any:
        with self._lock:
            del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaFreeHost(self, address: int) -> Any:
        self.host.remove(address)
        return self.cudaFree(address)

    def _handle(self, table: dict[int, list[Operation]]) -> int:
        with self._lock:
            self._next += 1
            table[self._next] = []
            return self._next

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == self.cudaStreamNonBlocking
        return Status.cudaSuccess, self._handle(self.queues)

    def cudaStreamDestroy(self, stream: int) -> Any:
        assert not self.queues.pop(stream), "a stream is destroyed with work on it"
        return (Status.cudaSuccess,)

    def enqueue(self, stream: int, operation: Operation) -> None:
        self.captures.get(stream, self.queues[stream]).append(operation)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: str, stream: int) -> Any:
        assert {"up": source, "down": target}[kind] in self.host, "the host's side of a copy must be pinned"
        assert {"up": target, "down": source}[kind] not in self.host

        def copy() -> None:
            ctypes.memmove(target, source, size)

        self.enqueue(stream, copy)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> Any:
        assert stream not in self.captures, "synchronising a stream that is captured"
        queue, self.queues[stream] = self.queues[stream], []
        for operation in queue:
            operation()
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: str) -> Any:
        assert mode == "thread-local"
        assert not self.queues[stream]
        self.captures[stream] = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        graph = self._handle(self.graphs)
        self.graphs[graph] = self.captures.pop(stream)
        return Status.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        executable = self._handle(self.graphs)
        self.graphs[executable] = list(self.graphs[graph])
        return Status.cudaSuccess, executable

    def cudaGraphDestroy(self, graph: int) -> Any:
        del self.graphs[graph]
        return (Status.cudaSuccess,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph: int, stream: int) -> Any:
        self.launched += 1
        self.queues[stream].extend(self.graphs[graph])
        return (Status.cudaSuccess,)


def make_engine(
    cuda: FakeCuda,
    trt: Any,
    make: Callable[..., Any],
    tensors: dict[str, tuple[str, str, tuple[int, ...]]],
    compute: Compute,
    failing: set[str],
    contexts: list[Any],
) -> Any:
    """An ``ICudaEngine``.

    Args:
        cuda: its GPU.
        trt: module with the enums.
        make: makes an object of a class of TensorRT from its members.
        tensors: (mode, data type, shape without the batch) by name.
        compute: what it computes.
        failing: methods that shall fail.
        contexts: gets every context that is made.
    """
    names = list(tensors)

    def make_context(config: Any = None) -> Any:
        if "create_execution_context" in failing:
            return None
        state: dict[str, Any] = {"addresses": {}, "shape": None, "busy": False, "config": config}
        contexts.append(state)

        def set_input_shape(name: str, shape: Any) -> bool:
            assert tensors[name][0] == "INPUT"
            state["shape"] = tuple(shape)
            return "set_input_shape" not in failing

        def set_tensor_address(name: str, memory: int) -> bool:
            state["addresses"][name] = memory
            return "set_tensor_address" not in failing

        def execute_async_v3(stream_handle: int) -> bool:
            if "execute_async_v3" in failing or ("capture" in failing and stream_handle in cuda.captures):
                return False
            shape, addresses = state["shape"], dict(state["addresses"])
            cuda.enqueue(stream_handle, lambda: _execute(tensors, compute, shape, addresses))
            return True

        return make(
            "IExecutionContext",
            set_optimization_profile_async=lambda profile_index, stream_handle: profile_index == 0,
            set_input_shape=set_input_shape,
            set_tensor_address=set_tensor_address,
            execute_async_v3=execute_async_v3,
        )

    return make(
        "ICudaEngine",
        num_io_tensors=len(names),
        get_tensor_name=lambda index: names[index],
        get_tensor_mode=lambda name: getattr(trt.TensorIOMode, tensors[name][0]),
        get_tensor_dtype=lambda name: getattr(trt.DataType, tensors[name][1]),
        get_tensor_shape=lambda name: (-1, *tensors[name][2]),
        create_execution_context=make_context,
        create_runtime_config=lambda: make("IRuntimeConfig"),
    )


def _execute(tensors: Any, compute: Compute, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
    source = next(name for name, (mode, _, _) in tensors.items() if mode == "INPUT")
    kind = {"UINT8": np.uint8, "FLOAT": np.float32}[tensors[source][1]]
    for name, array in compute(_view(addresses[source], shape, kind)).items():
        _view(addresses[name], array.shape, np.float32)[...] = array


def _view(address: int, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory: npt.NDArray[Any] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype)
    return memory.reshape(shape)


class Plain(SimpleNamespace):
    """An object with the members it is given."""

    def __init__(self, kind: str, **members: Any) -> None:
        super().__init__(kind=kind, **members)


class _Logger:
    Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class FakeTensorRT(ModuleType):
    """``tensorrt`` or ``tensorrt_rtx`` with one engine in it."""

    TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
    DataType = enum.Enum("DataType", "FLOAT HALF UINT8")
    DynamicShapesKernelSpecializationStrategy = enum.Enum(
        "DynamicShapesKernelSpecializationStrategy", "LAZY EAGER NONE"
    )
    ILogger = _Logger

    def __init__(self, cuda: FakeCuda, tensors: Any, compute: Compute, version: str = "11.4.0.106") -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.failing: set[str] = set()
        self.contexts: list[Any] = []
        self.plans: list[bytes] = []
        self._cuda, self._tensors, self._compute = cuda, tensors, compute

    def Runtime(self, logger: Any) -> Any:
        assert self._cuda.calls, "CUDA must be asked before TensorRT"

        def deserialize_cuda_engine(plan: bytes) -> Any:
            self.plans.append(plan)
            if "deserialize_cuda_engine" in self.failing:
                logger.log(_Logger.Severity.ERROR, "[engine.cpp:1] magic tag mismatch")
                logger.log(_Logger.Severity.WARNING, "by the way")
                return None
            return make_engine(self._cuda, self, Plain, self._tensors, self._compute, self.failing, self.contexts)

        return Plain("Runtime", deserialize_cuda_engine=deserialize_cuda_engine)


TENSORS = {
    "frames": ("INPUT", "UINT8", (8, 64, 64, 3)),
    "logits": ("OUTPUT", "FLOAT", (8,)),
    "embedding": ("OUTPUT", "FLOAT", (128,)),
}


def compute(frames: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
    """Figures that differ for every clip."""
    sums = frames.reshape(len(frames), -1).astype(np.float32).mean(axis=1, keepdims=True)
    return {
        "logits": sums * np.arange(8, dtype=np.float32),
        "embedding": np.repeat(sums, 128, axis=1),
    }

"""The few CUDA runtime calls that a session needs, each with its status checked."""

from __future__ import annotations

import ctypes
import importlib
import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.errors import EnvironmentFault
from vivit_export.packages import how_to_install, importing
from vivit_export.runtime.session.device import Device, gpu_driver


def _no_gpu(why: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"no NVIDIA GPU can be used here ({why}); check that nvidia-smi lists it and that the driver is new enough"
    )


class Cuda:
    """The CUDA runtime, and one GPU of it.

    Args:
        gpu: ordinal.
        extra: extra of this package to name if cuda-python is missing.

    Attributes:
        sm: compute capability, such as 90.
        device: what identifies it.

    Raises:
        MissingDependencyError: cuda-python is not installed.
        EnvironmentFault: the driver or the GPU is missing.
    """

    def __init__(self, gpu: int, extra: str) -> None:
        with importing("cuda.bindings.runtime", "cuda-python", how_to_install(extra)):
            self.rt: Any = importlib.import_module("cuda.bindings.runtime")
        # This call comes first: without a working driver, TensorRT crashes or returns unusable objects.
        try:
            status, count = self.rt.cudaGetDeviceCount()
        except RuntimeError as e:  # how cuda-python 12.8 says that there is no libcuda
            raise _no_gpu(str(e)) from e
        if int(status) or not count:
            raise _no_gpu(self._name(status) if int(status) else "none is visible")
        if gpu >= count:
            raise EnvironmentFault(f"there is no GPU {gpu}: this machine has {count}, counted from 0")
        self.gpu = gpu
        self._pinned: dict[int, int] = {}  # sizes by address
        self.use()
        parts = (self.rt.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor,
                 self.rt.cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor)  # fmt: skip
        major, minor = (self.check(self.rt.cudaDeviceGetAttribute(part, gpu)) for part in parts)
        self.sm = 10 * int(major) + int(minor)
        name = self.check(self.rt.cudaGetDeviceProperties(gpu)).name
        self.device = Device(
            name.partition(b"\0")[0].decode("utf-8", "replace"),
            gpu_driver(int(self.check(self.rt.cudaDriverGetVersion()))),
        )

    def use(self) -> None:
        """Select this GPU for the calling thread; CUDA stores the choice per thread."""
        self.check(self.rt.cudaSetDevice(self.gpu))

    def check(self, result: Any) -> Any:
        """Return the result of a cuda-python call without its status.

        Raises:
            EnvironmentFault: the status is not success.
        """
        status, *values = result
        if int(status):
            hint = "; free GPU memory, or take a smaller batch" if "Memory" in self._name(status) else ""
            raise EnvironmentFault(f"GPU {self.gpu} failed with {self._name(status)}{hint}")
        return values[0] if len(values) == 1 else None

    def stream(self) -> Any:
        """Make a stream that does not wait for the default stream."""
        return self.check(self.rt.cudaStreamCreateWithFlags(self.rt.cudaStreamNonBlocking))

    def synchronize(self, stream: Any) -> None:
        """Wait for all work of a stream."""
        self.check(self.rt.cudaStreamSynchronize(stream))

    def copy(self, target: int, source: int, num_bytes: int, stream: Any, *, to_gpu: bool) -> None:
        """Copy between pinned host memory and the GPU, in the stream's order."""
        kinds = self.rt.cudaMemcpyKind
        kind = kinds.cudaMemcpyHostToDevice if to_gpu else kinds.cudaMemcpyDeviceToHost
        self.check(self.rt.cudaMemcpyAsync(target, source, num_bytes, kind, stream))

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Make an array in pinned memory, which is freed with the last reference to it."""
        num_bytes = math.prod(shape) * dtype.itemsize
        address = int(self.check(self.rt.cudaMallocHost(num_bytes)))
        memory = (ctypes.c_uint8 * num_bytes).from_address(address)
        self._pinned[address] = num_bytes

        def free(pinned: dict[int, int], rt: Any) -> None:
            del pinned[address]
            rt.cudaFreeHost(address)

        weakref.finalize(memory, free, self._pinned, self.rt).atexit = False
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def is_pinned(self, array: npt.NDArray[Any]) -> bool:
        """Return whether an array lies in memory from `pinned`, without gaps."""
        begin = array.ctypes.data
        end, ranges = begin + array.nbytes, list(self._pinned.items())
        return array.flags.c_contiguous and any(at <= begin and end <= at + size for at, size in ranges)

    def _name(self, status: Any) -> str:
        return str(getattr(status, "name", status))


def device_of(gpu: int) -> Device | None:
    """Return what identifies a GPU, or None where cuda-python is not installed, or does not find it."""
    try:
        return Cuda(gpu, "gpu").device
    except EnvironmentFault:
        return None


class Buffer:
    """One tensor at its largest batch: pinned host memory and a buffer on the GPU.

    Attributes:
        host: array (max batch, ...) in pinned memory.
        device: address on the GPU.
    """

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._cuda = cuda
        num_bytes = math.prod(shape) * dtype.itemsize
        self.clip_bytes = num_bytes // shape[0]
        self._host = self.device = 0
        try:
            self._host = int(cuda.check(cuda.rt.cudaMallocHost(num_bytes)))
            self.device = int(cuda.check(cuda.rt.cudaMalloc(num_bytes)))
        except EnvironmentFault:
            self.free()
            raise
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(self._host))
        self.host: npt.NDArray[Any] = raw.view(dtype).reshape(shape)

    def upload(self, batch: npt.NDArray[Any], stream: Any) -> None:
        """Copy a batch to the GPU: straight from pinned memory, or by way of `host`.

        Args:
            batch: (B, ...); pinned memory must not change before the stream is done with it.
            stream: of the copy.
        """
        source = batch.ctypes.data if self._cuda.is_pinned(batch) else self._host
        if source == self._host:
            np.copyto(self.host[: len(batch)], batch, casting="no")
        self._cuda.copy(self.device, source, len(batch) * self.clip_bytes, stream, to_gpu=True)

    def download(self, count: int, stream: Any) -> None:
        """Copy the first ``count`` clips from the GPU."""
        self._cuda.copy(self._host, self.device, count * self.clip_bytes, stream, to_gpu=False)

    def free(self) -> None:
        """Free both; `host` must not be used afterward."""
        if self._host:
            self._cuda.rt.cudaFreeHost(self._host)
        if self.device:
            self._cuda.rt.cudaFree(self.device)
        self._host = self.device = 0

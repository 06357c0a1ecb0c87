"""Run a compiled engine of a bundle: TensorRT and TensorRT for RTX, which share one API.

An engine's sidecar decides whether it fits, before anything is deserialized: an engine holds machine
code for one compiler version and GPU. Host code inside an engine is never allowed. Each thread runs in
an execution context of its own, with its own stream and pinned buffers. For each batch size, the copies
and the network are captured once into a CUDA graph and replayed.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import MODEL, Bundle
from vivit_export.bundle.engines import EngineRecord
from vivit_export.contract import IO, Tensor
from vivit_export.errors import BundleError, EnvironmentFault
from vivit_export.flavour import Flavour
from vivit_export.packages import how_to_install, importing
from vivit_export.runtime.session.backend import Float32, Pool
from vivit_export.runtime.session.cuda import Buffer, Cuda

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8"}
_LOG = logging.getLogger(__name__)


def open_engine(bundle: Bundle, flavour: Flavour, name: str | None = None, gpu: int = 0) -> TensorRTBackend:
    """Open the engine of a flavour that fits this machine.

    Args:
        bundle: a verified bundle.
        flavour: which TensorRT.
        name: of one engine in the bundle, or None for the first that fits.
        gpu: ordinal.

    Raises:
        EnvironmentFault: the bundle has none, none fits, or the package, driver or GPU is missing.
        BundleError: the engine was altered, or made from another graph.
    """
    return TensorRTBackend(bundle, *find_engine(bundle, flavour, name, gpu))


def find_engine(bundle: Bundle, flavour: Flavour, name: str | None = None, gpu: int = 0) -> tuple[str, Any, Cuda]:
    """Return the name of the engine that `open_engine` opens, the module that runs it, and the GPU.

    Args:
        bundle: a verified bundle.
        flavour: see `open_engine`, as for ``name`` and ``gpu``.
        name: see there.
        gpu: see there.

    Raises:
        EnvironmentFault: the bundle has none, none fits, or the package, driver or GPU is missing.
    """
    names = [n for n, e in bundle.engines.items() if e.flavour is flavour and name in (None, n)]
    if not names:
        raise EnvironmentFault(
            f"the bundle has no {flavour.product} engine; add one with: vivit build {bundle.path} --target {flavour}"
        )
    # CUDA first: without a GPU nothing of TensorRT, some 2 GB of libraries, needs to be loaded.
    cuda = Cuda(gpu, flavour.extra)
    trt = _import(flavour)
    reasons = []
    for candidate in names:
        reason = incompatibility(bundle.engines[candidate], trt.__version__, cuda.sm)
        if reason is None:
            return candidate, trt, cuda
        reasons.append(f"{candidate} {reason}")
    raise EnvironmentFault(f"{'; '.join(reasons)}; build one here with: vivit build {bundle.path} --target {flavour}")


def incompatibility(engine: EngineRecord, version: str, sm: int) -> str | None:
    """Return why an engine cannot run on a machine, or None if it can.

    Args:
        engine: what the bundle says about it.
        version: version of the installed package.
        sm: compute capability of the GPU.
    """
    if engine.version == version and sm in engine.sms:
        return None
    title = engine.flavour.product
    targets = ", ".join(f"sm_{built}" for built in engine.sms)
    return f"was built for {title} {engine.version} on {targets}; this machine has {title} {version} on sm_{sm}"


class TensorRTBackend:
    """One engine on one GPU; see `backend.Backend`.

    Args:
        bundle: a verified bundle.
        engine: name of an engine in it that fits (`incompatibility`).
        trt: module ``tensorrt`` or ``tensorrt_rtx``.
        cuda: the GPU.

    Raises:
        EnvironmentFault: TensorRT refuses the engine.
        BundleError: the engine was altered, or does not have the contract's inputs and outputs.
    """

    at_once = 2  # one is copied to the GPU while the other is computed

    def __init__(self, bundle: Bundle, engine: str, trt: Any, cuda: Cuda) -> None:
        record = bundle.engines[engine]
        self.flavour = record.flavour
        self.name = str(self.flavour)
        self.batches = (record.profile.min, record.profile.max)
        self.details = (
            f"{self.flavour.product} {trt.__version__}, GPU {cuda.gpu} (sm_{cuda.sm}), {bundle.precision}, "
            f"engine {engine}"
        )
        self.files = (bundle.engine_path(engine).relative_to(bundle.path).as_posix(),)
        self.device, self.verified_on = cuda.device, record.verified_on
        self._trt, self._cuda, self._io = trt, cuda, bundle.contract.io
        plan = _read_plan(bundle, engine)
        # The logger and the runtime must outlive the engine, and it the contexts.
        self._logger = _make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EnvironmentFault(f"{self.flavour.product} refuses the engine {engine}{self._logger.said()}")
        _check_signature(self._engine, trt, self._io, engine)
        self._contexts: Pool[_Context] = Pool(self._make_context, _Context.free)

    def run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        """Run one batch in a context that no other thread is using."""
        self._cuda.use()
        with self._contexts.lend() as context:
            return context.run(batch)

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Make an array from which `run` copies to the GPU without another copy on the way."""
        self._cuda.use()
        return self._cuda.pinned(shape, dtype)

    def run_in_steps(self, batch: npt.NDArray[Any]) -> dict[str, float]:
        """Run one batch without its CUDA graph, waiting after each step; return the seconds of each."""
        self._cuda.use()
        with self._contexts.lend() as context:
            return context.run_in_steps(batch)

    def close(self) -> None:
        """Free contexts and buffers, then the engine."""
        self._cuda.use()
        self._contexts.close()
        self._engine = self._runtime = None

    def _make_context(self) -> _Context:
        if self.flavour is Flavour.TENSORRT_RTX:
            config = self._engine.create_runtime_config()
            # Kernels for a new batch size are compiled before it runs: otherwise a slower kernel would run
            # first, and the graph would capture that one.
            strategies = self._trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise EnvironmentFault(
                f"{self.flavour.product} cannot make an execution context{self._logger.said()}; free GPU memory"
            )
        return _Context(context, self._cuda, self._io, self.batches[1], self._logger)


class _Context:
    """An execution context with its stream, buffers and CUDA graphs; for one thread at a time."""

    def __init__(self, context: Any, cuda: Cuda, io: IO, largest: int, logger: Any) -> None:
        self._context, self._cuda, self._logger = context, cuda, logger
        self._source = io.inputs[0]
        self._outputs = [tensor.name for tensor in io.outputs]
        self._graphs: dict[int, Any] = {}  # by batch size; None where capturing failed
        self._buffers: dict[str, Buffer] = {}
        self._stream = cuda.stream()
        try:
            self._require(context.set_optimization_profile_async(0, int(self._stream)), "take its profile")
            cuda.synchronize(self._stream)
            for tensor in (*io.inputs, *io.outputs):
                buffer = Buffer(cuda, (largest, *_clip_shape(tensor)), np.dtype(tensor.dtype))
                self._buffers[tensor.name] = buffer
                self._require(context.set_tensor_address(tensor.name, buffer.device), f"bind {tensor.name}")
        except EnvironmentFault:
            self.free()
            raise

    def run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        count = len(batch)
        # Not part of the graph, which would fix the place in memory that it comes from.
        self._buffers[self._source.name].upload(batch, self._stream)
        if count not in self._graphs:
            self._set_batch(count)
            self._enqueue(count)  # kernels are loaded, and memory is sized, outside of the capture
            self._cuda.synchronize(self._stream)
            self._graphs[count] = self._capture(count)
        elif self._graphs[count] is not None:
            self._cuda.check(self._cuda.rt.cudaGraphLaunch(self._graphs[count], self._stream))
        else:
            self._set_batch(count)
            self._enqueue(count)
        self._cuda.synchronize(self._stream)
        return {name: self._buffers[name].host[:count].copy() for name in self._outputs}

    def run_in_steps(self, batch: npt.NDArray[Any]) -> dict[str, float]:
        count, source = len(batch), self._buffers[self._source.name]
        self._set_batch(count)
        steps: dict[str, Callable[[], None]] = {
            "host to device": lambda: source.upload(batch, self._stream),
            "compute": lambda: self._execute(count),
            "device to host": lambda: self._download(count),
        }
        return {name: self._timed(enqueue) for name, enqueue in steps.items()}

    def _timed(self, enqueue: Callable[[], None]) -> float:
        start = time.perf_counter()
        enqueue()
        self._cuda.synchronize(self._stream)
        return time.perf_counter() - start

    def free(self) -> None:
        """Free everything, after any work that was enqueued before a failure is done with the buffers."""
        rt = self._cuda.rt
        rt.cudaStreamSynchronize(self._stream)
        for graph in filter(None, self._graphs.values()):
            rt.cudaGraphExecDestroy(graph)
        self._context = None
        for buffer in self._buffers.values():
            buffer.free()
        rt.cudaStreamDestroy(self._stream)
        self._graphs, self._buffers = {}, {}

    def _set_batch(self, count: int) -> None:
        shape = (count, *_clip_shape(self._source))
        self._require(self._context.set_input_shape(self._source.name, shape), f"take a batch of {count}")

    def _enqueue(self, count: int) -> None:
        self._execute(count)
        self._download(count)

    def _execute(self, count: int) -> None:
        self._require(self._context.execute_async_v3(int(self._stream)), f"run a batch of {count}")

    def _download(self, count: int) -> None:
        for name in self._outputs:
            self._buffers[name].download(count, self._stream)

    def _capture(self, count: int) -> Any:
        """Record network and copies of outputs for a batch size; return None, with a warning, if that is impossible."""
        rt = self._cuda.rt
        # Thread-local, so that allocations of other threads do not invalidate the capture.
        mode = rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda.check(rt.cudaStreamBeginCapture(self._stream, mode))
        try:
            self._enqueue(count)
        except EnvironmentFault as e:
            rt.cudaStreamEndCapture(self._stream)
            _LOG.warning("batches of %d run without a CUDA graph: %s", count, e)
            return None
        graph = self._cuda.check(rt.cudaStreamEndCapture(self._stream))
        try:
            return self._cuda.check(rt.cudaGraphInstantiate(graph, 0))
        finally:
            rt.cudaGraphDestroy(graph)

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise EnvironmentFault(f"the engine could not {what}{self._logger.said()}")


def _import(flavour: Flavour) -> Any:
    with importing(flavour.module, flavour.product, how_to_install(flavour.extra)):
        trt = importlib.import_module(flavour.module)
    flavour.require_version(trt.__version__)
    return trt


def _read_plan(bundle: Bundle, engine: str) -> bytes:
    """Read an engine, and verify that its bytes are the ones the manifest describes."""
    path, files = bundle.engine_path(engine), bundle.manifest.files
    plan = bundle.read(path.relative_to(bundle.path).as_posix())
    if bundle.engines[engine].onnx_sha256 != files[MODEL].sha256:
        raise BundleError(f"{path} was built from another {MODEL} than the one beside it; build it again")
    return plan


def _check_signature(engine: Any, trt: Any, io: IO, name: str) -> None:
    """TensorRT reinterprets bytes of another type without a word: compare before anything is bound."""
    found = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    for tensor, mode in [(t, "INPUT") for t in io.inputs] + [(t, "OUTPUT") for t in io.outputs]:
        if tensor.name not in found or engine.get_tensor_mode(tensor.name) != getattr(trt.TensorIOMode, mode):
            raise BundleError(f"engine {name} has no {mode.lower()} {tensor.name}; build it again")
        kind = engine.get_tensor_dtype(tensor.name).name
        shape = tuple(engine.get_tensor_shape(tensor.name))[1:]
        if _DTYPES.get(kind) != tensor.dtype or shape != _clip_shape(tensor):
            raise BundleError(
                f"engine {name} has {tensor.name} as {kind} {shape}, but the contract says "
                f"{tensor.dtype} {_clip_shape(tensor)}; build it again"
            )


def _clip_shape(tensor: Tensor) -> tuple[int, ...]:
    """Shape without the batch."""
    return tuple(int(d) for d in tensor.shape[1:])


def _make_logger(trt: Any) -> Any:
    """Make a logger that keeps the last error for our own messages instead of printing it."""

    class Complaints(trt.ILogger):  # type: ignore[misc] # the module is only known at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._last = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._last = msg.strip().splitlines()[0] if msg.strip() else ""

        def said(self) -> str:
            return f" ({self._last})" if self._last else ""

    return Complaints()

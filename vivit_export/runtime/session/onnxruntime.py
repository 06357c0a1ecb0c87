"""Run a bundle's graph in ONNX Runtime: unchanged, or prepared for serving on the CPU."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import Bundle
from vivit_export.bundle.engines import Verification
from vivit_export.cores import is_restricted, usable_cores
from vivit_export.errors import BuildError, EnvironmentFault, MissingDependencyError
from vivit_export.packages import how_to_install, importing
from vivit_export.precision import Precision
from vivit_export.runtime.session.backend import arithmetic, graph_files, join_outputs
from vivit_export.runtime.session.cuda import device_of
from vivit_export.runtime.session.device import Device, cpu, saturates

if TYPE_CHECKING:
    from onnx import ModelProto

Float32 = npt.NDArray[np.float32]

# Clips per call on the CPU: as many as make about this many tokens. Activations grow with it; the
# number was not tuned.
_TOKENS_PER_CALL = 4096
# On the GPU the graph is as portable as its memory: what a profile would say by default.
_CLIPS_PER_CALL_CUDA = 8
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_shares_cores = ContextVar("shares_cores", default=False)
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxRuntimeSession:
    """One ONNX graph, run with whole batches for checks and calibration; on the CPU unless a GPU is allowed.

    Args:
        model: path of the ``.onnx`` file, with its external data beside it; or a whole graph, serialized.
        taps: values inside the graph to return in addition to its outputs; only with ``prepared``.
        prepared: run a float32 graph (with or without INT8 codes) as a session would, with lean attention and
            integer products; otherwise the graph is not modified.
        gpu_if_there: run on the first GPU, without TF32, if this ONNX Runtime can; otherwise use the CPU.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        BuildError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self, model: Path | bytes, taps: Sequence[str] = (), *, prepared: bool = False, gpu_if_there: bool = False
    ) -> None:
        onnxruntime = _import_onnxruntime()
        options = _options(onnxruntime)
        # Memory is returned between clips of different batch sizes rather than kept for the largest.
        options.enable_mem_pattern = False
        source, name = (model, "the graph") if isinstance(model, bytes) else (str(model), model.name)
        if prepared and isinstance(model, Path):
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(model.parent.resolve()))
            source = _prepared(model, taps)
        providers: list[Any] = [_CPU]
        if gpu_if_there and _CUDA in onnxruntime.get_available_providers():
            providers = [(_CUDA, {"use_tf32": "0"}), _CPU]
        self._session = _load(onnxruntime, source, options, providers, name)
        device = "cuda" if _CUDA in self._session.get_providers() else "cpu"
        self.name = f"onnxruntime {onnxruntime.__version__} {device}"
        self._input = self._session.get_inputs()[0].name
        self._outputs = [o.name for o in self._session.get_outputs()]

    def run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        """Run one batch.

        Args:
            batch: (B, ...) in the dtype and shape of the graph's input.

        Returns:
            float32 arrays (B, ...) by output name.
        """
        results = self._session.run(self._outputs, {self._input: batch})
        return dict(zip(self._outputs, results, strict=True))

    def run_in_batches(self, clips: npt.NDArray[Any], size: int) -> dict[str, Float32]:
        """Run N clips, ``size`` at a time, and join the results."""
        return join_outputs([self.run(clips[i : i + size]) for i in range(0, len(clips), size)])


class OnnxRuntimeBackend:
    """A bundle's graph, served by ONNX Runtime; see `backend.Backend`.

    On the CPU, the graph is prepared in memory (`widen`, `multi_head_attention`, `int8_products`). On a GPU, it runs
    as it is in the bundle, with TF32 off, so that fp32 means fp32; fp16 and bf16 use fused attention if that loads.

    Args:
        bundle: a verified bundle.
        gpu: ordinal of the GPU, or None for the CPU.

    Raises:
        MissingDependencyError: onnxruntime is not installed, or supports only the CPU.
        EnvironmentFault: the GPU cannot be used.
        BuildError: ONNX Runtime refuses the graph.
    """

    def __init__(self, bundle: Bundle, gpu: int | None = None) -> None:
        onnxruntime = _import_onnxruntime()
        version = f"ONNX Runtime {onnxruntime.__version__}"
        if gpu is None:
            self.name = "onnxruntime-cpu"
            self._session, notes = _open_on_cpu(onnxruntime, bundle)
            self.details = f"{version}, CPU, {notes}"
            self.batches = (1, max(1, _TOKENS_PER_CALL // bundle.manifest.model.anatomy.tokens))
        else:
            self.name = "onnxruntime-cuda"
            self._session, notes = _open_on_gpu(onnxruntime, bundle, gpu)
            self.details = f"{version}, GPU {gpu}, {bundle.precision}, {notes}"
            self.batches = (1, _CLIPS_PER_CALL_CUDA)
        self.files = graph_files(bundle)
        self.verified_on: tuple[Verification, ...] = ()  # of a graph, which runs anywhere, nothing is recorded
        self.device: Device | None = cpu() if gpu is None else device_of(gpu)
        self._device = ("cpu", 0) if gpu is None else ("cuda", gpu)
        self._input = bundle.contract.io.inputs[0].name
        self._outputs = [output.name for output in bundle.contract.io.outputs]

    def run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        """Run one batch; ONNX Runtime sessions are safe to call from several threads."""
        try:
            results = self._session.run(self._outputs, {self._input: batch})
        except Exception as e:  # onnxruntime's own exceptions share no public base
            raise EnvironmentFault(f"ONNX Runtime failed on a batch of {len(batch)}: {str(e).splitlines()[0]}") from e
        return dict(zip(self._outputs, results, strict=True))

    def run_in_steps(self, batch: npt.NDArray[Any]) -> dict[str, float]:
        """Run one batch, waiting after each step; return the seconds of each. On the CPU, there are no copies."""
        onnxruntime = _import_onnxruntime()
        binding, times = self._session.io_binding(), [time.perf_counter()]
        source = onnxruntime.OrtValue.ortvalue_from_numpy(batch, *self._device)
        binding.bind_ortvalue_input(self._input, source)
        for name in self._outputs:
            binding.bind_output(name, *self._device)
        binding.synchronize_inputs()
        times.append(time.perf_counter())
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        times.append(time.perf_counter())
        binding.copy_outputs_to_cpu()
        times.append(time.perf_counter())
        upload, compute, download = np.diff(times).tolist()
        if self._device[0] == "cpu":
            return {"compute": compute}
        return {"host to device": upload, "compute": compute, "device to host": download}

    def close(self) -> None:
        """Free the graph and its weights."""
        self._session = None


def _import_onnxruntime() -> Any:
    with importing("onnxruntime", "ONNX Runtime", f"{how_to_install('cpu')} (or [gpu])"):
        import onnxruntime
    return onnxruntime


def _prepared(model: Path, taps: Sequence[str]) -> bytes:
    """Return the graph as a session runs it, with more outputs, without its external weights."""
    import onnx

    from vivit_export.runtime.session.int8_products import use_int8_products
    from vivit_export.runtime.session.multi_head_attention import use_multi_head_attention

    proto = onnx.load(model, load_external_data=False)
    use_multi_head_attention(proto)
    use_int8_products(proto)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in taps)
    return bytes(proto.SerializeToString())


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised with the same words
    if saturates():  # silently, without this; elsewhere it makes INT8 products take twice the time (1.32)
        options.add_session_config_entry("session.x64quantprecision", "1")
    if is_restricted():  # ONNX Runtime takes as many threads as the machine has cores, whatever a container may use
        options.intra_op_num_threads = usable_cores()
    if _shares_cores.get():
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


@contextmanager
def sharing_cores() -> Iterator[None]:
    """Let sessions that are opened meanwhile sleep when they wait, because others need the cores.

    ONNX Runtime's threads wait for the next work in a loop, which answers sooner and takes the time of those who read.
    """
    before = _shares_cores.set(True)
    try:
        yield
    finally:
        _shares_cores.reset(before)


def _load(onnxruntime: Any, model: str | bytes, options: Any, providers: list[Any], name: str) -> Any:
    if providers != [_CPU]:
        _load_cuda_libraries(onnxruntime)
    start = partial(onnxruntime.InferenceSession, model, options, providers=providers)
    try:
        try:
            return start()
        except Exception as e:
            if "float8" not in str(e):
                raise
            # Before 1.32 they give FP8 codes to a Transpose or to integer products, and then the graph is refused.
            return start(disabled_optimizers=["QDQPropagationTransformer", "QDQSelectorActionTransformer"])
    except Exception as e:  # onnxruntime's own exceptions share no public base
        raise BuildError(f"ONNX Runtime cannot load {name}: {str(e).splitlines()[0]}") from e


def _load_cuda_libraries(onnxruntime: Any) -> None:
    """Load CUDA and cuDNN of the wheels beside ONNX Runtime, where its own library does not look for them.

    What is missing there comes from the system. Whether CUDA started is asked later, so what this prints is dropped.
    """
    with redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()


def prepare_for_cpu(bundle: Bundle) -> tuple[ModelProto, str]:
    """Return a bundle's graph prepared for any CPU, and what was changed; external weights stay in their file."""
    from vivit_export.runtime.session.int8_products import use_int8_products
    from vivit_export.runtime.session.multi_head_attention import use_multi_head_attention
    from vivit_export.runtime.session.widen import load_widened

    model = load_widened(bundle)
    lean = use_multi_head_attention(model)
    if bundle.precision is Precision.INT8:
        use_int8_products(model)
    types = arithmetic(bundle.precision, Precision.FP32)
    return model, f"{types}, {f'{lean} MultiHeadAttention ops' if lean else 'attention as in the graph'}"


def prepare_for_cuda(bundle: Bundle) -> tuple[ModelProto, str]:
    """Return a bundle's graph with fused attention, and how many layers are fused; "" if it has none to fuse.

    External weights stay in their file.
    """
    from vivit_export.runtime.session.external_weights import load_graph
    from vivit_export.runtime.session.multi_head_attention import use_multi_head_attention

    model = load_graph(bundle)
    fused = use_multi_head_attention(model)
    return model, f"{fused} fused attention layers" if fused else ""


def _open_on_cpu(onnxruntime: Any, bundle: Bundle) -> tuple[Any, str]:
    """Return the loaded graph and what was changed."""
    model, notes = prepare_for_cpu(bundle)
    return _load_verified(onnxruntime, bundle, model, [_CPU]), notes


def _open_on_gpu(onnxruntime: Any, bundle: Bundle, gpu: int) -> tuple[Any, str]:
    """Return the loaded graph and the form of its attention."""
    if _CUDA not in onnxruntime.get_available_providers():
        raise MissingDependencyError(
            'this ONNX Runtime has no CUDA; replace it with: pip uninstall onnxruntime; pip install "vivit-export[gpu]"'
        )
    # Memory grows by what is asked for, not to the next power of two: a quarter less for ViViT-B, and no slower.
    settings = {"device_id": str(gpu), "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
    providers = [(_CUDA, settings), _CPU]
    try:
        session, notes = _load_fused(onnxruntime, bundle, providers)
    except BuildError as e:
        raise EnvironmentFault(f"GPU {gpu} cannot be used by ONNX Runtime ({e.__cause__})") from e
    if _CUDA not in session.get_providers():  # ONNX Runtime continues without it, and only logs that
        raise EnvironmentFault(
            f"ONNX Runtime could not start CUDA on GPU {gpu}: check that nvidia-smi lists it and that CUDA and cuDNN "
            "are of the versions it was built for"
        )
    return session, notes


def _load_fused(onnxruntime: Any, bundle: Bundle, providers: list[Any]) -> tuple[Any, str]:
    """Load with fused attention if the type and this build have such kernels, else with the attention of the graph."""
    from vivit_export.runtime.session.external_weights import load_graph

    load = partial(_load_verified, onnxruntime, bundle, providers=providers)
    as_it_is, (model, fused) = "attention as in the graph", prepare_for_cuda(bundle)
    if not fused:
        return load(model), as_it_is
    try:
        return load(model), fused
    except BuildError as e:
        return load(load_graph(bundle)), f"{as_it_is}, because fused attention does not load: {e}"


def _load_verified(onnxruntime: Any, bundle: Bundle, model: ModelProto, providers: list[Any]) -> Any:
    """Load a graph with weights from verified bytes: no file of the bundle is opened again by its name.

    While it loads, the weights are in memory twice: in these bytes, and as ONNX Runtime prepares them.
    """
    from vivit_export.runtime.session.external_weights import read_external_weights, return_freed_memory

    options, weights = _options(onnxruntime), read_external_weights(bundle.read, model)
    files, values = weights.files, []
    if files and hasattr(options, "add_external_initializers_from_files_in_memory"):  # ONNX Runtime copies
        sizes = [len(content) for content in files.values()]
        options.add_external_initializers_from_files_in_memory(list(files), list(files.values()), sizes)
    elif files:  # 1.23 has no such method: it computes with our memory
        make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
        values = [make(weight.codes, weight.type) for weight in weights.tensors.values()]
        options.add_external_initializers(list(weights.tensors), values)
    session = _load(onnxruntime, model.SerializeToString(), options, providers, bundle.model.name)
    session.vivit_values = values  # as long as the session lives
    del weights, files
    return_freed_memory()
    return session

"""Run a bundle's portable graph in OpenVINO, on the CPU."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from vivit_export.bundle import Bundle
from vivit_export.bundle.engines import Verification
from vivit_export.cores import is_restricted, usable_cores
from vivit_export.errors import BuildError, BundleError, EnvironmentFault
from vivit_export.packages import how_to_install, importing
from vivit_export.precision import Precision
from vivit_export.runtime.session.backend import Float32, Pool, arithmetic, graph_files
from vivit_export.runtime.session.device import cpu, saturates
from vivit_export.runtime.session.external_weights import ExternalWeights, read_external_weights
from vivit_export.runtime.session.widen import load_widened

_TOKENS_PER_CALL = 4096  # as for ONNX Runtime: larger batches cost memory and are no faster
_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16"}
_CORE_LOCK = threading.Lock()


def hints_of(precision: Precision, in_float: bool) -> dict[str, str]:
    """Return how OpenVINO is to compile a graph.

    Args:
        precision: ``fp32`` or ``bf16``.
        in_float: multiply the values of INT8 codes rather than the codes, whose sums of products would saturate.
    """
    hints = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if in_float:
        hints["LP_TRANSFORMS_MODE"] = "OFF"
    if is_restricted():
        hints["INFERENCE_NUM_THREADS"] = str(usable_cores())
    return hints


class OpenVinoBackend:
    """A bundle's graph, compiled for this CPU; see `backend.Backend`.

    The arithmetic is always set explicitly: by default, OpenVINO computes in bf16 if the CPU can.

    Args:
        bundle: a verified bundle.
        precision: ``fp32`` or ``bf16``.

    Raises:
        MissingDependencyError: openvino is not installed.
        EnvironmentFault: the CPU does not have that arithmetic.
        BuildError: OpenVINO refuses the graph.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, precision: Precision = Precision.FP32) -> None:
        openvino = _import_openvino()
        in_float = bundle.precision is Precision.INT8 and saturates()
        hints = hints_of(precision, in_float)
        try:
            graph, self._weights = _read_graph(bundle, openvino)
            self._model: Any = _core().compile_model(graph, "CPU", hints)
        except BundleError:
            raise
        except Exception as e:  # RuntimeError, with a C++ location in every line
            raise BuildError(f"OpenVINO cannot load {bundle.model.name}: {_last_line(e)}") from e
        found = self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if found != _HINTS[precision]:
            raise EnvironmentFault(f"this CPU has no {precision} arithmetic: OpenVINO would compute in {found}")
        types = f"int8 codes, computed in {precision}" if in_float else arithmetic(bundle.precision, precision)
        self.details = f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU, {types}"
        self.batches = (1, max(1, _TOKENS_PER_CALL // bundle.manifest.model.anatomy.tokens))
        self.files, self.device = graph_files(bundle), cpu()
        self.verified_on: tuple[Verification, ...] = ()  # as of `OnnxRuntimeBackend`
        self._input = bundle.contract.io.inputs[0].name
        self._outputs = [output.name for output in bundle.contract.io.outputs]
        self._requests: Pool[Any] = Pool(self._make_request, lambda _request: None)

    def run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        """Run one batch on a request that no other thread uses."""
        with self._requests.lend() as request:
            try:
                # The input is only read. Results are copied, because the request's next call overwrites them.
                results = request.infer({self._input: batch}, share_inputs=True, share_outputs=True)
            except RuntimeError as e:
                raise EnvironmentFault(f"OpenVINO failed on a batch of {len(batch)}: {_last_line(e)}") from e
            return {name: np.array(results[name], np.float32) for name in self._outputs}

    def _make_request(self) -> Any:
        return self._model.create_infer_request()

    def close(self) -> None:
        """Free the requests, the graph and its weights."""
        self._requests.close()
        self._model = None
        self._weights = ExternalWeights()  # the model computed with this memory


def _core() -> Any:
    """The only Core of this process, kept until it ends.

    A Core's CPU plugin gives the thread that makes it a signal stack, and takes it back with the Core. If two Cores are
    destroyed in the order they were made, the first one's stack stays set but is unmapped. The next signal that Python
    handles (Ctrl-C) is then a segmentation fault (2026.4; ``SigAltStackSetup`` in its intel_cpu plugin).
    """
    with _CORE_LOCK:  # two threads at once would make two
        return _make_core()


@cache
def _make_core() -> Any:
    return _import_openvino().Core()


def _read_graph(bundle: Bundle, openvino: Any) -> tuple[Any, ExternalWeights]:
    """Read a bundle's graph from verified bytes; of narrow types, the widened graph.

    OpenVINO opens a file of weights by its name. So these weights are declared as inputs, which then give way to
    constants in the memory that was verified. It is not copied, and must live as long as the compiled graph.

    OpenVINO would compute narrow types in fp32 by itself, but keep some of the roundings: the drift of a bf16 graph
    was four times as large as its weights alone explain (2026.4).
    """
    graph = load_widened(bundle)
    weights = read_external_weights(bundle.read, graph)
    inside = [tensor for tensor in graph.graph.initializer if tensor.name not in weights.tensors]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(inside)
    graph.graph.input.extend(
        helper.make_tensor_value_info(name, weight.type, weight.shape) for name, weight in weights.tensors.items()
    )
    model = _core().read_model(graph.SerializeToString())
    for parameter in model.get_parameters():
        weight = weights.tensors.get(parameter.get_friendly_name())
        if weight is not None:
            tensor = openvino.Tensor(weight.data, openvino.Shape(weight.shape), parameter.get_element_type())
            parameter.output(0).replace(openvino.op.Constant(tensor, shared_memory=True).output(0))
            model.remove_parameter(parameter)
    return model, weights


def _import_openvino() -> Any:
    with importing("openvino", "OpenVINO", how_to_install("openvino")):
        import openvino
    return openvino


def require_openvino() -> None:
    """Refuse to go on without OpenVINO.

    Raises:
        MissingDependencyError: it is not installed.
    """
    _import_openvino()
    _core()


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

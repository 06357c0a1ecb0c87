"""The child process of `compile`: the one module of the exporter that drives a TensorRT compiler.

``python -m vivit_export.export.engine.worker`` reads a request (JSON) on stdin, compiles in the
current folder and leaves there ``engine.plan`` (the compiler's bytes), ``inspector.json`` (full
TensorRT only) and ``result.json``; the log goes to stdout and stderr. ``--probe FLAVOUR`` prints
why this machine cannot build a flavour, as JSON.

Both flavours take one path through Polygraphy, which resolves "tensorrt" to either package by
POLYGRAPHY_USE_TENSORRT_RTX. Networks are strongly typed (the only kind there is in TensorRT 11,
a creation flag in 10): no builder flag chooses a precision.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from vivit_export.errors import EnvironmentFault
from vivit_export.flavour import Flavour
from vivit_export.packages import raise_if_interrupted
from vivit_export.records import JsonObject
from vivit_export.signals import die_with_parent

_CU_COMPUTE_CAPABILITY_MAJOR, _CU_COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute in cuda.h
_NO_GPU_HINT = "; full TensorRT builds on the GPU that runs the engine: use such a machine, or --target tensorrt-rtx"


class _FaultError(Exception):
    """A failure whose kind the parent must know: "environment" or "output"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def main(arguments: list[str]) -> int:
    """Serve one request and return the exit status: 0 done, 1 failed (``result.json`` has the reason)."""
    die_with_parent()
    if arguments[:1] == ["--probe"]:
        sys.stdout.write(json.dumps(probe(Flavour(arguments[1]))) + "\n")
        return 0
    request = json.load(sys.stdin)
    try:
        result = compile_request(request, Path.cwd())
    except _FaultError as e:
        result = {"kind": e.kind, "error": str(e)}
    except Exception as e:  # whatever the compiler's bindings raise: the parent words it with the log
        traceback.print_exc()  # into the log
        result = {"kind": "build", "error": f"{type(e).__name__}: {e}"}
    Path("result.json").write_text(json.dumps(result))
    return 1 if "error" in result else 0


def probe(flavour: Flavour) -> str | None:
    """Return why this machine cannot build ``flavour``, or None. Loads the libraries, starts no context."""
    try:
        if not flavour.ahead_of_time:
            current_sm()
        _import_compiler(flavour)
    except _FaultError as e:
        return str(e)
    return None


def compile_request(request: JsonObject, folder: Path) -> JsonObject:
    """Compile a request of `compile` into ``folder``.

    Returns:
        ``version`` and ``sms`` of the engine.

    Raises:
        _FaultError: the compiler cannot be loaded, there is no GPU, or the engine cannot be written.
        Exception: the compiler refused; the log says more than the exception that Polygraphy raises.
    """
    flavour = Flavour(request["flavour"])
    trt = _import_compiler(flavour)
    sms = request["sms"] if flavour.ahead_of_time else [current_sm()]
    engine = memoryview(_engine_bytes(trt, request, sms))
    try:
        (folder / "engine.plan").write_bytes(engine)
        if not flavour.ahead_of_time:  # it runs here
            (folder / "inspector.json").write_text(_inspect(trt, engine))
    except OSError as e:
        (folder / "engine.plan").unlink(missing_ok=True)  # makes room to say so
        raise _FaultError(
            "output", f"the engine of {engine.nbytes / 1e6:.1f} MB cannot be written ({e.strerror}); free some space"
        ) from e
    return {"version": trt.__version__, "sms": sms}


def current_sm() -> int:
    """Return the compute capability of the first visible GPU, such as 90, using only the driver.

    Raises:
        _FaultError: the driver or the GPU is missing.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as e:
        raise _FaultError("environment", f"there is no NVIDIA driver ({e}){_NO_GPU_HINT}") from e
    count, device, value = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        raise _FaultError("environment", f"the NVIDIA driver finds no GPU (CUDA error {status}){_NO_GPU_HINT}")
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    parts = []
    for attribute in (_CU_COMPUTE_CAPABILITY_MAJOR, _CU_COMPUTE_CAPABILITY_MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        parts.append(value.value)
    return 10 * parts[0] + parts[1]


def _import_compiler(flavour: Flavour) -> Any:
    try:
        trt = importlib.import_module(flavour.module)
        flavour.require_version(trt.__version__)
    except EnvironmentFault as e:
        raise _FaultError("environment", str(e)) from e
    except Exception as e:  # a library that is not there, or a package that does not fit another
        raise_if_interrupted(e)
        package = flavour.module.replace("_", "-")
        raise _FaultError(
            "environment", f"{package} cannot be loaded ({e}); reinstall {package} with its libraries"
        ) from e
    return trt


def _engine_bytes(trt: Any, request: JsonObject, sms: list[int]) -> Any:
    """Compile and return the bytes as the compiler's own buffer (``IHostMemory``)."""
    from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork, NetworkFromOnnxPath, Profile
    from polygraphy.logger import G_LOGGER

    # From here on, Polygraphy passes on the compiler's VERBOSE messages, which include the layer plan.
    G_LOGGER.module_severity = G_LOGGER.EXTRA_VERBOSE
    low, best, high = ((batch, *request["input_shape"]) for batch in request["batches"])
    options = {
        "profiles": [Profile().add(request["input_name"], min=low, opt=best, max=high)],
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
    }
    if request["flavour"] == Flavour.TENSORRT_RTX:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        create = CreateConfigRTX(compute_capabilities=[divmod(sm, 10) for sm in sms], **options)
    else:
        create = CreateConfig(load_timing_cache=request["timing_cache"], **options)

    def configure(builder: Any, network: Any) -> Any:
        config = create(builder, network)
        # fp32 means fp32, as in the reference: TF32 is on by default, and Polygraphy clears it in
        # CreateConfig but not in CreateConfigRTX (0.53.6).
        config.clear_flag(trt.BuilderFlag.TF32)
        return config

    network = NetworkFromOnnxPath(request["onnx"], strongly_typed=True)
    return EngineBytesFromNetwork(network, config=configure, save_timing_cache=request["timing_cache"])()


def _inspect(trt: Any, engine: memoryview) -> str:
    """Return the layer plan of an engine as JSON; needs the GPU it was built for."""
    from polygraphy.backend.trt import get_trt_logger

    # Not Polygraphy's EngineFromBytes: it allows host code inside the engine, which ours never has.
    runtime = trt.Runtime(get_trt_logger())
    inspector = runtime.deserialize_cuda_engine(engine).create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Build a TensorRT engine in a child process, for this machine's GPU or ahead of time for RTX GPUs.

Each build runs in a child process of its own (`worker`) for three reasons. Polygraphy chooses between
TensorRT and TensorRT for RTX once per process. A crash of the compiler must not crash the caller. And
the compiler's verbose log, which it writes directly to file descriptors, is the input of the plan proof.
Nothing here imports tensorrt, polygraphy or torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vivit_export.bundle.engines import PlanSummary
from vivit_export.errors import (
    BuildError,
    EnvironmentFault,
    InputError,
    OutputError,
    UsageError,
    VivitExportError,
    option,
)
from vivit_export.export.engine.layers import Layer, layers_from_inspector, layers_from_log
from vivit_export.export.engine.plan import memory_from_log, sum_up
from vivit_export.files import writing_file
from vivit_export.flavour import Flavour
from vivit_export.records import JsonObject

_WORKER = "vivit_export.export.engine.worker"
_FULL_BYTES = 1 << 20  # a disk with less left is full: no engine fits
_SECONDS_TO_END = 2.0  # between asking a child to end and killing it


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What to compile.

    Attributes:
        flavour: which TensorRT.
        onnx: strongly typed model, with any external data beside it.
        input_name: name of its one input.
        input_shape: shape of that input without the batch.
        batches: (min, opt, max) batch of the optimization profile.
        sms: compute capabilities to build for, such as (89, 120); RTX only. Empty: 86, 89 and 120.
        timing_cache: file of kernel timings, read and updated; full TensorRT only.
    """

    flavour: Flavour
    onnx: Path
    input_name: str
    input_shape: tuple[int, ...]
    batches: tuple[int, int, int]
    sms: tuple[int, ...] = ()
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        low, best, high = self.batches
        if not 1 <= low <= best <= high:
            raise UsageError(f"batches must satisfy 1 <= min <= opt <= max, got {low}, {best}, {high}")
        self.flavour.check_sms(self.sms)
        if self.timing_cache is not None and not self.flavour.times_kernels:
            raise UsageError(
                f"{option('timing_cache')} works with {option('targets', Flavour.TENSORRT)} only; "
                f"{self.flavour.product} times no kernels"
            )


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """What was compiled.

    Attributes:
        flavour: which TensorRT.
        version: its exact version; the engine runs on no other.
        sms: compute capabilities the engine runs on, ascending.
        batches: (min, opt, max) batch of the optimization profile.
        plan: summary of the layer plan, shared by all of ``sms``.
        layers: the plan itself, in order of execution.
        build_seconds: wall time of the child process.
        size_bytes: size of the engine file.
    """

    flavour: Flavour
    version: str
    sms: tuple[int, ...]
    batches: tuple[int, int, int]
    plan: PlanSummary
    layers: tuple[Layer, ...]
    build_seconds: float
    size_bytes: int


def unavailable_reason(flavour: Flavour) -> str | None:
    """Return why this machine cannot build a flavour, and the remedy, or None if it can.

    A child process imports the package and looks for the GPU, once per process.
    """
    for module, title in ((flavour.module, flavour.product), ("polygraphy", "Polygraphy, which drives the compiler,")):
        if importlib.util.find_spec(module) is None:
            return f'{title} is not installed; pip install "vivit-export[{flavour.extra}]"'
    return _probe(flavour)


def build_engine(
    request: EngineRequest, out: Path, log: Path, on_start: Callable[[int], None] | None = None
) -> BuiltEngine:
    """Compile ``request.onnx`` to ``out``; the compiler's verbose log goes to ``log``.

    The engine bytes are the compiler's own, renamed into place when everything is done. On any
    exception, including KeyboardInterrupt, the child and everything it started are killed and ``out``
    is as it was before; ``log`` stays.

    Args:
        request: what to compile.
        out: engine file; its folder must exist.
        log: log file, a few hundred KB for ViViT-B, several MB with full TensorRT.
        on_start: called with the child's process id once it runs.

    Raises:
        InputError: the ONNX file does not exist.
        OutputError: the engine cannot be written.
        EnvironmentFault: the package, a library, the driver or the GPU is missing.
        BuildError: the compiler refused the model, or crashed.
    """
    if not request.onnx.is_file():
        raise InputError(f"there is no ONNX model at {request.onnx}")
    if not out.parent.is_dir():
        raise OutputError(f"the engine cannot be written to {out}: there is no folder {out.parent}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        work = Path(folder)
        _copy_cache(request.timing_cache, work / "timing.cache")
        status = _run_worker(request, work, log, on_start)
        text = log.read_text(errors="replace")
        result = _read_result(work, request.flavour, status, text)
        layers = _read_layers(request.flavour, text, work)
        built = BuiltEngine(
            flavour=request.flavour,
            version=result["version"],
            sms=tuple(sorted(result["sms"])),
            batches=request.batches,
            plan=sum_up(layers, *memory_from_log(text)),
            layers=layers,
            build_seconds=time.monotonic() - started,
            size_bytes=(work / "engine.plan").stat().st_size,
        )
        os.replace(work / "engine.plan", out)
        _copy_cache(work / "timing.cache", request.timing_cache)
    return built


def _read_layers(flavour: Flavour, log_text: str, work: Path) -> tuple[Layer, ...]:
    """Without a GPU TensorRT for RTX cannot load what it compiled; its log has the plan."""
    if flavour is Flavour.TENSORRT_RTX:
        return layers_from_log(log_text)
    return layers_from_inspector((work / "inspector.json").read_text())


# --- the child ---------------------------------------------------------------------------------


def _run_worker(request: EngineRequest, work: Path, log: Path, on_start: Callable[[int], None] | None) -> int:
    """Run the worker on a request and return its exit status, negative for a signal."""
    message = {
        **dataclasses.asdict(request),
        "onnx": str(request.onnx.resolve()),
        "sms": request.flavour.check_sms(request.sms),
        "timing_cache": "timing.cache" if request.timing_cache else None,
    }
    # A session of its own: a terminal's Ctrl-C reaches only the parent, which then ends the whole
    # group. In the work folder no file of the user can shadow a module ("-m" puts it first).
    with log.open("wb") as sink, subprocess.Popen(
        _worker_command(), cwd=work, env=_environment(request.flavour), start_new_session=True,
        stdin=subprocess.PIPE, stdout=sink, stderr=subprocess.STDOUT,
    ) as child:  # fmt: skip
        try:
            if on_start is not None:
                on_start(child.pid)
            child.communicate(json.dumps(message).encode())
        except BaseException:
            _end(child)
            raise
    return child.returncode


def _worker_command(*options: str) -> list[str]:
    # Unbuffered: the log must be complete up to a crash, and in order with what C++ prints.
    return [sys.executable, "-u", "-m", _WORKER, *options]


def _environment(flavour: Flavour) -> dict[str, str]:
    return {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1" if flavour is Flavour.TENSORRT_RTX else "0"}


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child and its process group; ask first, because the compiler may hold GPU memory."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_SECONDS_TO_END)
            return


@functools.cache
def _probe(flavour: Flavour) -> str | None:
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            _worker_command("--probe", flavour), cwd=empty, env=_environment(flavour),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return f"{flavour.product} cannot be loaded ({last}); reinstall it"
    reason = json.loads(done.stdout.splitlines()[-1])
    return None if reason is None else str(reason)


def _copy_cache(source: Path | None, target: Path | None) -> None:
    """Copy a timing cache if there is one; a reader never sees a partial file."""
    if source is None or target is None or not source.is_file():
        return
    with writing_file(target, force=True) as part:
        shutil.copyfile(source, part)


# --- failures ----------------------------------------------------------------------------------

_FAULTS: dict[str, type[VivitExportError]] = {"environment": EnvironmentFault, "output": OutputError}
_FP16 = option("precision", "fp16")
_REPORT = "report it, with this message and the options used"
_GPU_UNUSABLE = "the GPU cannot be used: check that nvidia-smi lists it and that the driver is new enough"
# What the compilers say, and the usual way out; the first match counts (worded by 1.7.1 and 11.x).
_ADVICE = (
    (r"not supported by a dedicated kernel",
     f"no fused kernel exists for fp32 attention or heads wider than 256: use {_FP16}, or "
     f"{option('attention', 'pattern')}"),
    (r"HW-specific datatypes: fp8",
     f"fp8 needs SM 89 or newer: drop the older ones from {option('sms')}, or use {option('precision', 'int8')}"),
    (r"HW-specific datatypes: b(f|float)?16",
     f"bf16 needs SM 80 or newer: drop 75 from {option('sms')}, or use {_FP16}"),
    (r"for Turing \(SM75\)", f"drop 75 from {option('sms')}, or use {_FP16}"),
    (r"static dimensions that don't match", "the model's batch is fixed: export it with a dynamic batch"),
    (r"Failed to open file", "the model's external data is missing: keep the .data file beside the .onnx"),
    (r"out of memory|OutOfMemory|insufficient memory", f"free GPU memory, or lower {option('batches.max')}"),
    (r"UNSUPPORTED_NODE|Plugin not found", f"export with another {option('opset')}, or upgrade the compiler"),
    (r"INVALID_(NODE|GRAPH)", "the exported graph is at fault: report it"),
    (r"CUDA initialization failure|no CUDA-capable device|factory function returned nullptr", _GPU_UNUSABLE),
)  # fmt: skip
_NOISE = re.compile(r"ModelImporter\.cpp|catchCudaError|Could not parse ONNX correctly|Invalid Engine")


def _read_result(work: Path, flavour: Flavour, status: int, log_text: str) -> JsonObject:
    """Return what the worker reported, or raise the error."""
    try:
        result: JsonObject = json.loads((work / "result.json").read_text())
    except (FileNotFoundError, ValueError) as e:  # it crashed, or could not even write that
        if shutil.disk_usage(work).free < _FULL_BYTES:
            raise OutputError(
                f"{flavour.product} stopped because the disk is full; free some space and run again"
            ) from e
        result = {}
    if status == 0 and "version" in result:
        return result
    said, advice = explain_failure(log_text, result.get("error", ""))
    if status < 0:
        name = signal.Signals(-status).name
        hint = f"memory may have run out: lower {option('batches.max')}" if name == "SIGKILL" else advice or _REPORT
        raise BuildError(f"{flavour.product} crashed with {name}{f' after saying: {said}' if said else ''}; {hint}")
    kind = result.get("kind", "build")
    if kind != "build":
        raise _FAULTS[kind](f"{flavour.product}: {result['error']}")
    reason = said or f"the compiler ended with status {status}"
    fault = EnvironmentFault if advice == _GPU_UNUSABLE else BuildError
    raise fault(f"{flavour.product} could not compile the model: {reason}; {advice or _REPORT}")


def explain_failure(log_text: str, error: str = "") -> tuple[str, str]:
    """Return (the compiler's error, the usual remedy) from a log; "" if unknown.

    The first error counts, because later ones follow from it. Without a GPU, the compiler also
    reports an error about the CUDA driver, which can be ignored (tensorrt-rtx 1.7.1).

    Args:
        log_text: verbose log of a failed build.
        error: what its Python bindings raised, in case the log has no error.
    """
    complaints = re.findall(r"^(?:\[E\]|Internal Error:)\s*(.+)$", log_text, re.MULTILINE)
    real = [_stripped(c) for c in complaints if not _NOISE.search(c)] or [error]
    said = real[0]
    node = re.search(r"In node -?\d+ with name: (\S+) and operator: (\w+)", log_text)
    if node and node[1] not in said:
        said += f" (ONNX node {node[1]}, {node[2]})"
    if said.startswith("Attention operation"):  # the compiler does not say which one
        found = re.findall(r"Parsing node: (\S+) \[Attention\]", log_text)
        said += f" (ONNX node {found[0]}{f' or one of {len(found) - 1} like it' if found[1:] else ''})" if found else ""
    advice = [text for pattern, text in _ADVICE if re.search(pattern, " ".join(real))]
    return said, advice[0] if advice else ""


def _stripped(complaint: str) -> str:
    """Strip an error of its wrapping: error codes, source lines, links, C++ remedies."""
    for wrapping in (
        r"^\w+::\w+: Error Code \d+: ",
        r"^(?:API Usage Error|Internal Error|Myelin)\s*(?=\()",
        r"^\(|\)$",
        r"^\[[\w.]+:\d+: \w+\]\s*",
        r"^MyelinCheckException: [\w.]+:\d+: CHECK\(.*?\) failed\.\s*",
        r"\s*In [\w:~<>]+(?:\(\))? at /_src/.*$",
        r"\s*\(See http.*$",
    ):
        complaint = re.sub(wrapping, "", complaint)
    return complaint.rstrip(". ")

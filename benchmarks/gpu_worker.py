"""The processes of `gpu.py`, so that the GPU's memory is free again after each.

gpu_worker.py facts CHECKPOINT                          what the work of a clip is
gpu_worker.py gemm CHECKPOINT DEVICE BATCH              what matrix products reach
gpu_worker.py drift BUNDLE ENGINE...                    what each engine makes of the golden clips
gpu_worker.py kernels BATCH DEVICE pytorch CHECKPOINT KIND
gpu_worker.py kernels BATCH DEVICE ours BUNDLE ENGINE   which kernels the time goes to

Each prints one line of JSON last.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from vivit_export.bundle import read_bundle
from vivit_export.errors import VivitExportError
from vivit_export.export.checkpoint.load import load_checkpoint
from vivit_export.export.eager_worker import Eager
from vivit_export.records import to_json
from vivit_export.runtime.bench.worker import Contender, Served
from vivit_export.runtime.drift.check import check_session, gate_of, golden_clips
from vivit_export.runtime.select import open_session
from vivit_export.signals import die_with_parent

_SQUARE = (8192, 8192, 8192)  # large enough for any GPU's best
_CALLS, _WINDOWS, _PROFILED = 10, 5, 3
_SHOWN = 15
_CLASSES = {  # of kernels and operators, the first whose pattern is found in the name
    "attention": r"fmha|flash|attention|sdpa|softmax|bmm",
    "matrix products": r"gemm|nvjet|cublas|cutlass|xmma|matmul|addmm|::mm\b|linear|conv(?!ert)",
    "copies": r"memcpy|memset|copy",
}


def facts(checkpoint: str) -> dict[str, float]:
    """Floating-point operations of the encoder's matrix products for one clip, and of its Linears among them."""
    loaded = load_checkpoint(checkpoint)
    hidden, inner = int(loaded.config["hidden_size"]), int(loaded.config["intermediate_size"])
    linears = 2.0 * loaded.num_layers * loaded.anatomy.tokens * (4 * hidden**2 + 2 * hidden * inner)
    return {"flop_per_clip": loaded.flops_per_clip, "linear_flop_per_clip": linears}


def gemm(checkpoint: str, device: str, batch: str) -> dict[str, Any]:
    """GFLOP/s of matrix products by type: of fc1's shape, and on a GPU of a large square too, the best window."""
    loaded = load_checkpoint(checkpoint)
    rows = max(16, int(batch) * loaded.anatomy.tokens // 16 * 16)  # fp8 wants multiples of 16
    shapes = {"fc1": (rows, int(loaded.config["hidden_size"]), int(loaded.config["intermediate_size"]))}
    if device != "cpu":
        shapes["square"] = _SQUARE
    torch.backends.cuda.matmul.allow_tf32 = False
    rates: dict[str, Any] = {"shapes": shapes, "not_measured": {}}
    for name in ("fp32", "fp16", "bf16", "fp8"):
        rates[name] = {}
        for title, shape in shapes.items():
            try:
                rates[name][title] = _rate(name, shape, device)
            except RuntimeError as e:  # this GPU, or the CPU, has no such product
                rates["not_measured"][f"{name} {title}"] = str(e).strip().splitlines()[0]
    return rates


def drift(folder: str, *engines: str) -> dict[str, Any]:
    """Drift of a bundle's golden clips by engine, and what is beyond the gate; or why the engine does not run."""
    bundle = read_bundle(folder)
    frames, reference = golden_clips(bundle)
    gate, found = gate_of(bundle), dict[str, Any]()
    for engine in engines:
        try:
            with open_session(bundle, engine, self_test=False) as session:
                run = check_session(session, frames, reference, gate)[0]
                beyond = gate.violations(run.drift) if run.drift else []
                found[engine] = {"engine": session.details, "drift": to_json(run.drift), "beyond_gate": beyond}
        except VivitExportError as e:
            found[engine] = {"error": str(e)}
    return found


def _rate(precision: str, shape: tuple[int, int, int], device: str) -> float:
    m, k, n = shape
    product = _product(precision, torch.randn(m, k, device=device), torch.randn(k, n, device=device))
    seconds = min(_seconds(product, device) for _ in range(_WINDOWS))
    return 2 * m * k * n / seconds / 1e9


def _product(precision: str, a: torch.Tensor, b: torch.Tensor) -> Callable[[], object]:
    if precision == "fp8":
        if a.device.type == "cpu":
            raise RuntimeError("PyTorch's fp8 product is for GPUs")
        one = torch.ones((), device=a.device)
        a8, b8 = a.to(torch.float8_e4m3fn), b.t().contiguous().to(torch.float8_e4m3fn).t()  # the second by columns
        scaled: Any = torch._scaled_mm
        return lambda: scaled(a8, b8, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    left, right = a.to(dtype), b.to(dtype)
    return lambda: torch.mm(left, right)


def _seconds(run: Callable[[], object], device: str) -> float:
    """Seconds of one call: by CUDA events around several on a GPU, else by the clock."""
    run()
    if device == "cpu":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    event: Any = torch.cuda.Event  # without annotations
    begin, end = event(enable_timing=True), event(enable_timing=True)
    begin.record()
    for _ in range(_CALLS):
        run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / _CALLS


def kernels(batch: str, device: str, kind: str, source: str, name: str) -> dict[str, Any]:
    """Milliseconds of each kernel in one call, and of each class of them.

    PyTorch's profiler sees the kernels of the whole process, so those of ONNX Runtime and TensorRT too; on the CPU it
    sees PyTorch's operators alone.
    """
    contender: Contender = Eager("", source, name, device) if kind == "pytorch" else Served(source, name, device)
    clips = contender.batch(int(batch), 0)
    contender.run(clips)
    gpu = contender.gpu
    call: Callable[[Any], object] = gpu.compute if gpu else contender.run
    call(clips)
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU, *([activity.CUDA] if gpu else [])]) as profile:
        for _ in range(_PROFILED):
            call(clips)
    times = _times(profile, on_gpu=gpu is not None)
    if not times:
        raise RuntimeError("the profiler saw no kernels in this process")
    total = sum(times.values())
    classes: dict[str, float] = {}
    for name, ms in times.items():
        classes[_class_of(name)] = classes.get(_class_of(name), 0.0) + ms
    top = sorted(times.items(), key=lambda item: -item[1])[:_SHOWN]
    return {"total_ms": total, "classes": classes, "kernels": dict(top), "num_kernels": len(times)}


def _times(profile: Any, *, on_gpu: bool) -> dict[str, float]:
    times: dict[str, float] = {}
    for event in profile.key_averages():
        if event.is_user_annotation:  # a range around kernels, as torch.compile names its graphs
            continue
        is_kernel = event.device_type.name == "CUDA"
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if is_kernel == on_gpu and spent > 0:
            times[event.key] = times.get(event.key, 0.0) + spent / 1e3 / _PROFILED
    return times


def _class_of(name: str) -> str:
    found = (title for title, pattern in _CLASSES.items() if re.search(pattern, name, re.IGNORECASE))
    return next(found, "elementwise, normalization and the rest")


if __name__ == "__main__":
    die_with_parent()
    commands: dict[str, Callable[..., dict[str, Any]]]
    commands = {"facts": facts, "gemm": gemm, "drift": drift, "kernels": kernels}
    print(json.dumps(commands[sys.argv[1]](*sys.argv[2:])))

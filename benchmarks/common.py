"""What all benchmarks share: the environment, a measured child process, and the results folder."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from vivit_export.runtime.bench.nvidia_smi import gpu_model

RESULTS = Path(__file__).parent / "results"
TOOLS = Path(__file__).parents[1] / "tools"
_PACKAGES = (
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx-ir",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "numpy",
    "pillow",
    "av",
)


def environment() -> dict[str, Any]:
    """Machine, versions and command, as results are committed with."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": gpu_model(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "load_before": round(os.getloadavg()[0], 2),
    }


def write_crops(checkpoint: Path, path: Path) -> Path:
    """Write as many crops of rendered clips as a calibration needs at least, for a checkpoint; return the path."""
    from safetensors.numpy import save_file

    from vivit_export.calibration.clips import FEWEST_CLIPS
    from vivit_export.export.calibrate import motion_clips
    from vivit_export.export.checkpoint.load import load_checkpoint

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"frames": motion_clips(load_checkpoint(str(checkpoint)), range(FEWEST_CLIPS))}, path)
    return path


def run_measured(command: Sequence[str]) -> dict[str, Any]:
    """Run a command to its end; wall seconds, peak resident bytes of it and its children, its output.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    import psutil

    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, _resident(process))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        out, err = child.communicate()
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {child.returncode}: {err[-500:]}")
    return {"seconds": round(seconds, 2), "peak_bytes": peak, "stdout": out}


def load_tool(name: str) -> ModuleType:
    """Import ``tools/NAME.py``, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peak_bytes() -> int:
    """Peak resident memory of this process (Linux)."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def write_results(name: str, content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``FOLDER/NAME.json``, beside its place first, so that it is whole at any time."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{name}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return part.replace(path)


def _resident(process: Any) -> int:
    import psutil

    total = 0
    try:
        for p in [process, *process.children(recursive=True)]:
            total += p.memory_info().rss
    except psutil.Error:
        pass  # it ended between two looks
    return total


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()

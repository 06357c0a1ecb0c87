"""Read facts from ``nvidia-smi``; return nothing if it is missing."""

from __future__ import annotations

import shutil
import subprocess


def gpu_clocks() -> str:
    """Return name, clocks and temperature of the first GPU, or nothing if there is none."""
    lines = _ask("--query-gpu=name,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu")
    return lines[0] if lines else ""


def gpu_model() -> str:
    """Return name, driver, memory and power limit of the first GPU, or nothing if there is none."""
    lines = _ask("--query-gpu=name,driver_version,memory.total,power.limit")
    return lines[0] if lines else ""


def gpu_used_bytes() -> int | None:
    """Return the memory in use on all GPUs by any process, or None if it is unknown.

    A process measures its own share by how this grows: nvidia-smi's count per process is missing in containers.
    """
    sizes = [line.split()[0] for line in _ask("--query-gpu=memory.used")]
    return sum(int(mebibytes) << 20 for mebibytes in sizes) if sizes and all(s.isdigit() for s in sizes) else None


def _ask(query: str) -> list[str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run(
            [tool, query, "--format=csv,noheader"], capture_output=True, text=True, check=False, timeout=10
        )
    except subprocess.TimeoutExpired:
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []

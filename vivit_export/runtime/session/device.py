"""What identifies the device that an engine runs on, and what its CPU can do.

Results that were proven on a device hold on its like.

A GPU is known by its name and driver. A CPU has no driver: what decides which kernels a library chooses are its model
and its instructions, of which a virtual machine may hide some.
"""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_GPU_DRIVER = Path("/proc/driver/nvidia/version")
_CPU = Path("/proc/cpuinfo")
VNNI = ("avx512_vnni", "avx_vnni")
"""What Linux calls the instructions that multiply bytes without saturation."""
_VERSION = re.compile(r"\b\d{3,4}\.\d+(?:\.\d+)?\b", re.ASCII)


@dataclass(frozen=True, slots=True)
class Device:
    """A device of this machine.

    Attributes:
        name: of the GPU or the CPU, such as NVIDIA H100 80GB HBM3.
        driver: version of a GPU's driver, such as 580.65.06, CUDA 13.0; for a CPU, its architecture and a digest of
            its instruction sets.
    """

    name: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name} ({self.driver})"


def gpu_driver(cuda_version: int) -> str:
    """Return the version of the kernel's NVIDIA driver, if Linux tells, and of the CUDA that is used with it.

    They differ where a container brings a newer CUDA driver with it.

    Args:
        cuda_version: as cudaDriverGetVersion returns it, such as 13000.
    """
    cuda = f"CUDA {cuda_version // 1000}.{cuda_version % 1000 // 10}"
    found = _VERSION.search(_text(_GPU_DRIVER).partition("\n")[0])
    return f"{found[0]}, {cuda}" if found else cuda


def cpu() -> Device:
    """Return this machine's CPU."""
    first = _text(_CPU).partition("\n\n")[0]
    facts = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", first, re.MULTILINE))
    machine = platform.machine()
    name = facts.get("model name") or " ".join(facts[key] for key in _ARM if key in facts) or machine
    instructions = facts.get("flags") or facts.get("Features") or ""
    return Device(name, f"{machine}, instructions {hashlib.sha256(instructions.encode()).hexdigest()[:12]}")


def saturates() -> bool:
    """Return whether usual INT8 kernels add pairs of products in 16 bits, which is too few for codes of 8 bits.

    So do AVX2 and AVX-512 without VNNI (https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html). What
    is unknown counts as without.
    """
    facts = _text(_CPU)
    return platform.machine().lower() in ("x86_64", "amd64") and not any(name in facts for name in VNNI)


_ARM = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision")  # it has no name there


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

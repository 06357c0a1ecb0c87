"""What a machine may lack: tests that need it are skipped, or fail where it was promised.

``VIVIT_REQUIRE=rtx,onnxruntime`` promises those; ``.ci/run`` sets it. A test says ``needs_rtx`` and
the hooks here, which ``conftest.py`` imports, do the rest.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest


def missing(name: str, reason: str) -> NoReturn:
    """Skip the test for want of ``name``, or fail it where VIVIT_REQUIRE lists that."""
    if name in os.environ.get("VIVIT_REQUIRE", "").split(","):
        pytest.fail(f"VIVIT_REQUIRE promises {name}, but {reason}", pytrace=False)
    pytest.skip(reason, allow_module_level=True)  # some files need it as a whole


def fetched(tool: str, name: str, *arguments: str) -> Path:
    """The folder that ``tools/TOOL ARGUMENTS`` fetches, or a test skipped for want of ``name``."""
    found = _fetch(tool, *arguments)
    if isinstance(found, str):
        missing(name, f"{tool} failed: {found}")
    return found


@cache
def _fetch(tool: str, *arguments: str) -> Path | str:
    """The folder, or why it cannot be had."""
    command = [sys.executable, str(Path(__file__).parents[2] / "tools" / tool), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Path(done.stdout.splitlines()[-1]) if done.returncode == 0 else (done.stderr.splitlines() or ["?"])[-1]


def _rtx() -> str | None:
    from vivit_export.export.engine.compile import unavailable_reason
    from vivit_export.flavour import Flavour

    return unavailable_reason(Flavour.TENSORRT_RTX)


def _onnxruntime() -> str | None:
    return None if importlib.util.find_spec("onnxruntime") else "onnxruntime is not installed"


def _gpu() -> str | None:
    return None if any(Path("/dev").glob("nvidia[0-9]*")) else "this machine has no NVIDIA GPU"


# Marker, the name VIVIT_REQUIRE knows, a function that returns why it is missing, what the marker says.
# The TensorRT bindings, and what the C++ tests compile against and with, are fetched, not found: what does so calls
# missing("tensorrt-bindings", ...), missing("cpp", ...) and missing("clang", ...).
CAPABILITIES: tuple[tuple[str, str, Callable[[], str | None], str], ...] = (
    ("needs_rtx", "rtx", _rtx, "builds an engine with TensorRT for RTX"),
    ("needs_onnxruntime", "onnxruntime", _onnxruntime, "runs a graph in ONNX Runtime"),
    ("needs_gpu", "gpu", _gpu, "runs on an NVIDIA GPU"),
)


def pytest_configure(config: pytest.Config) -> None:
    for marker, _, _, meaning in CAPABILITIES:
        config.addinivalue_line("markers", f"{marker}: {meaning}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, name, find_reason, _ in CAPABILITIES:
        if item.get_closest_marker(marker) is not None and (reason := find_reason()) is not None:
            missing(name, reason)

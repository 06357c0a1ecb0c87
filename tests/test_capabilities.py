"""A test that needs what a machine lacks is skipped, and fails where that was promised."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import capabilities
import pytest

CONFTEST = """
import capabilities
from capabilities import pytest_configure, pytest_runtest_setup

capabilities.CAPABILITIES = (("needs_gpu", "gpu", lambda: "there is none", "runs on a GPU"),)
"""
TEST = """
import pytest

@pytest.mark.needs_gpu
def test_on_a_gpu(): ...

def test_anywhere(): ...
"""


@pytest.mark.parametrize(
    ("required", "outcome"),
    [("rtx", "1 passed, 1 skipped"), ("rtx,gpu", "1 passed, 1 error")],
)
def test_a_promise_turns_the_skip_into_a_failure(tmp_path: Path, required: str, outcome: str) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-rsfE", "-p", "no:cacheprovider", "--strict-markers", "."]
    environment = {**os.environ, "VIVIT_REQUIRE": required, "PYTHONPATH": str(Path(__file__).parent / "support")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert outcome in done.stdout, done.stdout
    assert "there is none" in done.stdout


def test_missing_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVIT_REQUIRE", "onnxruntime,rtx")
    with pytest.raises(pytest.skip.Exception, match="no bindings"):
        capabilities.missing("tensorrt-bindings", "no bindings")
    with pytest.raises(pytest.fail.Exception, match="VIVIT_REQUIRE promises rtx, but it is gone"):
        capabilities.missing("rtx", "it is gone")


def test_every_name_that_ci_requires_is_known() -> None:
    script = (Path(__file__).parents[1] / ".ci/run").read_text()
    (line,) = (line for line in script.splitlines() if "VIVIT_REQUIRE=" in line)
    known = {name for _, name, _, _ in capabilities.CAPABILITIES} | {
        "tensorrt-bindings",
        "test-videos",
        "openvino",
        "cuda-python",
        "cpp",
        "clang",
        "libav",
        "gstreamer",
        "tritonclient",
        "tritonserver",
        "kubernetes_validate",
        "cryptography",
        "model_signing",
        "atheris",
        "chromium",
        "axe",
        "doxygen",
        "iframe-worker",
        "ray",
    }
    assert set(line.partition("=")[2].split(",")) <= known

"""Commands on a machine that has the base install only: no torch, transformers, onnx-ir and onnxscript."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from console import BIN, console

import vivit_export
from vivit_export import demo

BLOCKER = """
import sys

for name in ("torch", "transformers", "huggingface_hub", "onnx_ir", "onnxscript"):
    sys.modules[name] = None  # not to be found
"""


@pytest.fixture
def no_torch(tmp_path: Path) -> dict[str, str]:
    """Environment of a machine with the base install."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{Path(vivit_export.__path__[0]).parent}", "PATH": str(BIN)}


def test_inspect_needs_no_torch_and_export_says_that_it_does(no_torch: dict[str, str], demo_bundle: Path) -> None:
    done = console("vivit", "inspect", demo_bundle, cwd=demo_bundle, env=no_torch)
    assert done.returncode == 0, done.stderr
    done = console("vivit-export", "demo", "--target", "onnx", cwd=demo_bundle, env=no_torch)
    assert done.returncode == 7
    assert done.stderr == (
        "error: exporting a checkpoint, or running it in PyTorch, needs the package torch, which is not installed; "
        'install it with: pip install "vivit-export[export]"\n'
    )


@pytest.mark.needs_onnxruntime
def test_a_bundle_is_served_without_it(no_torch: dict[str, str], demo_bundle: Path) -> None:
    video = demo.clips_path() / "up_240x426_30fps.mp4"
    for command in (("predict", demo_bundle, video), ("check", demo_bundle), ("deploy", "cpp", demo_bundle, "app"),
                    ("deploy", "triton", demo_bundle, "repository", "--ensemble")):  # fmt: skip
        done = console("vivit", *command, cwd=demo_bundle.parent, env=no_torch)
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize("call", ["ve.export_model('demo', 'out')", "ve.check({bundle!r}, against='eager')"])
def test_python_callers_are_told_too(no_torch: dict[str, str], demo_bundle: Path, call: str) -> None:
    code = f"""
import vivit_export as ve
from vivit_export.errors import MissingDependencyError
try:
    {call.format(bundle=str(demo_bundle))}
except MissingDependencyError as e:
    print(e)
"""
    done = console("python", "-c", code, cwd=demo_bundle.parent, env=no_torch)
    assert done.returncode == 0, done.stderr
    assert 'pip install "vivit-export[export]"' in done.stdout


@pytest.mark.needs_onnxruntime
def test_eager_pytorch_is_not_timed_and_that_is_no_success(no_torch: dict[str, str], demo_bundle: Path) -> None:
    command = ("bench", demo_bundle, "--engine", "onnxruntime-cpu", "--against", "eager", "--rounds", "1", "-q")
    done = console("vivit", *command, cwd=demo_bundle, env=no_torch)
    assert done.returncode == 7
    assert done.stderr == (
        "error: pytorch eager cannot be timed: exporting a checkpoint, or running it in PyTorch, needs the package "
        'torch, which is not installed; install it with: pip install "vivit-export[export]"\n'
    )


@pytest.mark.needs_rtx
def test_engines_are_built_without_torch(no_torch: dict[str, str], demo_bundle: Path) -> None:
    command = ("build", demo_bundle, "--target", "tensorrt-rtx", "--sm", "89")
    done = console("vivit", *command, cwd=demo_bundle.parent, env=no_torch)
    assert done.returncode == 0, done.stderr
    code = f"""
import vivit_export as ve
built = ve.build_engines({str(demo_bundle)!r}, ["tensorrt-rtx"], sms=(120,))
assert set(built.engines) == {{"tensorrt-rtx-sm89", "tensorrt-rtx-sm120"}}
"""
    done = console("python", "-c", code, cwd=demo_bundle.parent, env=no_torch)
    assert done.returncode == 0, done.stderr

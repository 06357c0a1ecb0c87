"""Commands on a machine that has neither torch nor transformers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from console import BIN, console

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def no_torch(tmp_path: Path) -> dict[str, str]:
    """Environment of a machine that has neither torch nor transformers."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER)
    others = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{others}" if others else str(folder), "PATH": str(BIN)}


def test_inspect_needs_no_torch_and_export_says_that_it_does(no_torch: dict[str, str], demo_bundle: Path) -> None:
    done = console("vivit", "inspect", demo_bundle, cwd=demo_bundle, env=no_torch)
    assert done.returncode == 0, done.stderr
    done = console("vivit-export", "demo", "--target", "onnx", cwd=demo_bundle, env=no_torch)
    assert done.returncode == 7
    assert done.stderr == "error: the package torch is not installed; pip install vivit-export\n"


@pytest.mark.needs_onnxruntime
def test_eager_pytorch_is_not_timed_and_that_is_no_success(no_torch: dict[str, str], demo_bundle: Path) -> None:
    command = ("bench", demo_bundle, "--engine", "onnxruntime-cpu", "--against", "eager", "--rounds", "1", "-q")
    done = console("vivit", *command, cwd=demo_bundle, env=no_torch)
    assert done.returncode == 7
    said = "pytorch eager cannot be timed: the package torch is not installed; pip install vivit-export"
    assert done.stderr == f"error: {said}\n"


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

"""Packages that are installed but cannot be imported, for any reason: a sentence, exit code 7, or the next engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from bundles import Bundles, need

from vivit_export.demo import clips_path

KEY = Path(__file__).parents[1] / "data/vivit-bundle-2/bundle.json"  # any file; a key would be read later
LEFT = str(next(clips_path().glob("left*")))
REASONS = {
    "library": 'raise ImportError("libsomething.so.1: cannot open shared object file: No such file or directory")',
    "dtype": 'raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")',
    "version": 'raise RuntimeError("module compiled against ABI version 0x1000009")',
    "name": "import os; os.nothing",
    "system": 'raise OSError("[WinError 126] The specified module could not be found")',
    "silent": "raise SystemError",
    "syntax": "a b",
}
"""What stands in a module, as field reports have it."""

# Of the command line: what each command needs first.
COMMANDS: dict[str, Sequence[str]] = {
    "torch": ["vivit-export", "demo", "-o", "OUT"],
    "transformers": ["vivit-export", "demo", "-o", "OUT"],
    "onnx_ir": ["vivit-export", "demo", "-o", "OUT"],
    "onnxscript": ["vivit-export", "demo", "-o", "OUT", "--target", "onnx"],
    "av": ["vivit", "predict", "BUNDLE", LEFT],
    "PIL": ["vivit", "predict", "BUNDLE", LEFT],
    "numpy": ["vivit", "predict", "BUNDLE", LEFT],
    "onnx": ["vivit", "predict", "BUNDLE", LEFT],
    "onnxruntime": ["vivit", "check", "BUNDLE", "--engine", "onnxruntime"],
    "openvino": ["vivit", "check", "BUNDLE", "--engine", "openvino"],
    "tritonclient": ["vivit", "predict", "triton://127.0.0.1:1/demo", LEFT],
    "jinja2": ["vivit", "check", "BUNDLE", "--report", "OUT.html"],
    "cryptography": ["vivit", "verify", "BUNDLE", "--key", "KEY"],
    "huggingface_hub": ["vivit", "pull", "hf://owner/name", "-o", "OUT"],
    "ray": ["vivit", "predict", "BUNDLE", LEFT, "--ray", "-o", "OUT"],
}


def run(
    folder: Path, package: str, code: str, arguments: Sequence[str], bundle: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command where a package is one that cannot be imported."""
    (folder / "broken" / package).mkdir(parents=True)
    (folder / "broken" / package / "__init__.py").write_text(code)
    places = {"BUNDLE": str(bundle), "OUT": str(folder / "out"), "OUT.html": str(folder / "out.html"), "KEY": str(KEY)}
    return start([places.get(argument, argument) for argument in arguments], folder, PYTHONPATH=str(folder / "broken"))


def start(arguments: Sequence[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with more environment variables."""
    name = arguments[0].replace("-", "_")
    command = [sys.executable, "-c", f"from vivit_export.cli import {name}; {name}()", *arguments[1:]]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.field_case("onnxruntime 1127", "Mask_RCNN 3063")
@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("package", COMMANDS)
def test_a_package_that_cannot_be_imported_is_named(bundles: Bundles, tmp_path: Path, package: str) -> None:
    need(package)
    reason = list(REASONS)[list(COMMANDS).index(package) % len(REASONS)]
    bundle = bundles.demo(check=True, num_clips=3)
    done = run(tmp_path, package, REASONS[reason], COMMANDS[package], bundle.path)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 7, done.stderr
    said = done.stderr.splitlines()[-1]
    assert "is installed but cannot be imported (" in said and "pip install --force-reinstall " in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


@pytest.mark.needs_onnxruntime
def test_details_have_the_traceback(bundles: Bundles, tmp_path: Path) -> None:
    arguments = ["vivit", "predict", "BUNDLE", LEFT, "--verbose"]
    done = run(tmp_path, "av", REASONS["dtype"], arguments, bundles.demo().path)
    assert done.returncode == 7
    assert "Traceback" in done.stderr and "broken/av/__init__.py" in done.stderr


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("reason", REASONS)
def test_the_next_engine_runs(bundles: Bundles, tmp_path: Path, reason: str) -> None:
    need("openvino")
    arguments = ["vivit", "predict", "BUNDLE", LEFT, "--json"]
    done = run(tmp_path, "openvino", REASONS[reason], arguments, bundles.demo().path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top"][0]["label"] == "left"
    assert "ONNX Runtime" in done.stderr


@pytest.mark.field_case("transformers 42279", "transformers 36045")
@pytest.mark.needs_onnxruntime
def test_python_without_docstrings(bundles: Bundles, tmp_path: Path) -> None:
    """transformers reads them while it is imported; nothing that serves a bundle does."""

    def optimized(*arguments: str) -> subprocess.CompletedProcess[str]:
        return start(arguments, tmp_path, PYTHONOPTIMIZE="2")

    done = optimized("vivit-export", "demo", "-o", "out")
    assert done.returncode == 7
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: the package transformers is installed but cannot be imported (")
    assert said.endswith("; unset PYTHONOPTIMIZE, or run Python without -OO, which takes away texts that packages read")
    assert not (tmp_path / "out").exists()
    done = optimized("vivit", "predict", str(bundles.demo().path), LEFT, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top"][0]["label"] == "left"
    assert optimized("vivit", "--help").returncode == 0

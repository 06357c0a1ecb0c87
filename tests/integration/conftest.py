"""Bundles made once, and a command line that insists on leaving no trace of a failure."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner, Result
from console import Exported, console, tree

from vivit_export.cli import vivit

if TYPE_CHECKING:
    from vivit_export.export.checkpoint.load import Checkpoint


@pytest.fixture(scope="session")
def demo_export(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The demo exported by the installed command; not to be modified."""
    home = tmp_path_factory.mktemp("demo")
    done = console("vivit-export", "demo", "--fp16", "--target", "onnx", "-o", "out/demo", cwd=home)
    assert done.returncode == 0, done.stderr
    return Exported(home / "out/demo", done.stdout, done.stderr)


@pytest.fixture
def demo_bundle(demo_export: Exported, tmp_path: Path) -> Path:
    """A copy of the demo's bundle."""
    return Path(shutil.copytree(demo_export.bundle, tmp_path / "bundles" / "demo"))


@pytest.fixture(scope="session")
def trace_once() -> Callable[[Checkpoint, Sequence[str]], ir.Model]:
    """``trace``, but a checkpoint is traced once for all tests."""
    from vivit_export.export.graph.trace import trace

    done: dict[object, onnx.ModelProto] = {}

    def traced(checkpoint: Checkpoint, outputs: Sequence[str]) -> ir.Model:
        key = (checkpoint.source, *outputs)
        if key not in done:
            done[key] = ir.to_proto(trace(checkpoint, outputs))
        return ir.from_proto(done[key])

    return traced


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace_once: Callable[..., ir.Model]) -> Callable[..., Result]:
    """Runs ``vivit ARGUMENTS`` in a folder of its own; a failure must leave everything as it was."""
    monkeypatch.setattr("vivit_export.export.graph.build.trace", trace_once)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)

    def run(*arguments: str | Path, code: int = 0) -> Result:
        before = tree(tmp_path)
        result = CliRunner().invoke(vivit, list(map(str, arguments)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        if code:
            assert tree(tmp_path) == before
            assert not result.stdout
        return result

    return run

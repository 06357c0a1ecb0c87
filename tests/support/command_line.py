"""The command line in tests: called in this process, and insisting that a failure leaves no trace."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from console import Exported, console, tree
from exporter import EXPORTER
from filelock import FileLock
from shared import shared_folder

Cli = Callable[..., Result]


def runner() -> CliRunner:
    """One that keeps stdout and stderr apart, as newer versions of Click always do."""
    older: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**older)


def error_of(result: Result) -> str:
    """The one sentence after "error:"; stages may stand before it."""
    (line,) = [line for line in result.stderr.splitlines() if line.lower().startswith("error: ")]
    assert result.stderr.endswith(f"{line}\n")
    assert "Traceback" not in result.stderr
    return line[len("error: ") :]


@pytest.fixture(scope="session")
def demo_export(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The demo exported by the installed command, once for all processes of a run; not to be modified."""
    home = shared_folder(tmp_path_factory) / "demo-export"
    printed = home / "printed.json"
    with FileLock(f"{home}.lock"):
        if not printed.exists():
            home.mkdir(exist_ok=True)
            command = Path(EXPORTER).parent / "vivit-export" if EXPORTER else "vivit-export"
            done = console(command, "demo", "--fp16", "--target", "onnx", "-o", "out/demo", "--force", cwd=home)
            assert done.returncode == 0, done.stderr
            printed.write_text(json.dumps([done.stdout, done.stderr]))
    return Exported(home / "out/demo", *json.loads(printed.read_text()))


@pytest.fixture
def demo_bundle(demo_export: Exported, tmp_path: Path) -> Path:
    """A copy of the demo's bundle."""
    return Path(shutil.copytree(demo_export.bundle, tmp_path / "bundles" / "demo"))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs ``vivit ARGUMENTS`` in a folder of its own; a failure must leave everything but ``leaves`` as it was."""
    from vivit_export.cli import vivit

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)

    def run(*arguments: str | Path, code: int = 0, leaves: str | None = None) -> Result:
        before = tree(tmp_path)
        result = runner().invoke(vivit, list(map(str, arguments)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        if code:
            after = tree(tmp_path)
            left = [name for name in after if leaves and Path(name).is_relative_to(leaves)]
            assert {name: data for name, data in after.items() if name not in left} == before
            assert not leaves or left
            assert not result.stdout
        return result

    return run

"""The wheel of the running package: what is in it, that pip takes it, and that it is always the same."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vivit_export
from vivit_export.deploy import wheel
from vivit_export.deploy.wheel import wheel_name, write_wheel
from vivit_export.errors import EnvironmentFault


def test_it_has_the_package_and_what_pip_needs(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_wheel(tmp_path)) as archive:
        names = set(archive.namelist())
        root = Path(vivit_export.__file__).parent
        assert archive.read("vivit_export/runtime/predict.py") == (root / "runtime/predict.py").read_bytes()
    info = f"vivit_export-{vivit_export.__version__}.dist-info"
    assert {f"{info}/{n}" for n in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")} <= names
    assert {"vivit_export/py.typed", "vivit_export/bundle/schemas/bundle.schema.json"} <= names
    assert "vivit_export/deploy/cpp/project/include/vivit/vivit.hpp" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_same_package_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    assert write_wheel(tmp_path).read_bytes() == write_wheel(tmp_path / "again").read_bytes()


def test_pip_installs_it_and_the_commands_run(tmp_path: Path) -> None:
    made, target = write_wheel(tmp_path), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(made)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, target / "bin/vivit", "--version"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith(vivit_export.__version__)
    code = "import vivit_export; print(vivit_export.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(target))


def test_a_package_that_was_only_copied_cannot_be_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "distributions", lambda name: iter(()))
    with pytest.raises(EnvironmentFault, match="install it with pip"):
        write_wheel(tmp_path)
    assert not (tmp_path / wheel_name()).exists()

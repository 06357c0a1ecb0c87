"""The workflow that checks drift on GitHub: read as YAML, and its commands run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from bundles import Bundles
from console import BIN

WORKFLOW = Path(__file__).parents[2] / "examples/github/drift.yml"
pytestmark = pytest.mark.needs_onnxruntime


def steps() -> dict[str, Any]:
    """The steps that have names."""
    job = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["drift"]
    assert job["env"] == {"BUNDLE": "models/vivit"}
    return {step["name"]: step for step in job["steps"] if "name" in step}


def test_it_installs_what_the_package_offers() -> None:
    assert steps()["Install"]["run"] == 'python -m pip install "vivit-export[cpu]"'


@pytest.mark.parametrize(("gate", "code"), [("", 0), (" --gate max=1e-12", 5)], ids=["passes", "fails"])
def test_its_commands_tell_what_is_wrong(bundles: Bundles, tmp_path: Path, gate: str, code: int) -> None:
    shutil.copytree(bundles.demo(check=True, num_clips=3).path, tmp_path / "models/vivit")
    environment = {**os.environ, "BUNDLE": "models/vivit", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    def run(name: str) -> str:
        command = steps()[name]["run"].replace('"$BUNDLE"', f'"$BUNDLE"{gate}')
        done = subprocess.run(
            ["bash", "-e", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    told = run("Check").splitlines()
    assert {line.partition(" ")[0] for line in told} == ({"::error", "::notice"} if code else {"::notice"})
    assert json.loads((tmp_path / "drift.json").read_text(encoding="utf-8"))["format"] == "vivit-report/2"
    run("Write a JUnit file")
    suite = ElementTree.parse(tmp_path / "drift.xml").getroot()
    assert int(suite.get("tests", "0")) >= 3 and (suite.get("failures") != "0") == bool(code)
    assert steps()["Write a JUnit file"]["if"] == "always()"  # the step before fails if there is drift

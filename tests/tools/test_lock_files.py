"""The files that CI installs: every one that it needs, each with its hash, as constraints.txt has their versions."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from typing import Any

import lock_files
import project_file
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCKED = {
    canonicalize_name(found[1]): found[2]
    for line in lock_files.LOCK.read_text(encoding="utf-8").splitlines()
    if (found := re.fullmatch(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}", line))
}
CI = "3.11"


def pinned(python: str) -> dict[str, str]:
    """The versions of constraints.txt for a version of Python, by plain name."""
    pins: dict[str, str] = {}
    for line in lock_files.CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            name, (pin,) = canonicalize_name(requirement.name), requirement.specifier
            assert name not in pins, f"{name} is pinned twice for Python {python}"
            assert pin.operator == "==", line
            pins[name] = pin.version
    return pins


def test_every_line_of_the_lock_has_a_hash() -> None:
    lines = [line for line in lock_files.LOCK.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert len(lines) == len(LOCKED) > 100


def test_the_lock_and_the_constraints_are_of_the_same_versions() -> None:
    assert {name: Version(text).public for name, text in LOCKED.items()} == pinned(CI)


@pytest.mark.parametrize("python", ["3.10", "3.12", "3.13"])
def test_each_python_has_one_pin_of_what_we_ask_for(python: str) -> None:
    project, pins = project_file.project(), pinned(python)
    asked = [
        *project["dependencies"],
        *(r for e in lock_files.extras().split(",") for r in project["optional-dependencies"][e]),
    ]
    for requirement in map(Requirement, asked):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_what_runs_here_is_what_is_pinned() -> None:
    pins = pinned(f"{sys.version_info.major}.{sys.version_info.minor}")
    for name in (
        "torch",
        "transformers",
        "onnx",
        "onnxruntime",
        "numpy",
        "av",
        "safetensors",
        "cryptography",
        "pytest",
    ):
        assert Version(version(name)).public == Version(pins[name]).public


def _report(**archive: Any) -> dict[str, Any]:
    return {
        "install": [
            {"metadata": {"name": "vivit-export", "version": "1"}, "download_info": {"dir_info": {"editable": True}}},
            {"metadata": {"name": "Zope.Event", "version": "6.2"}, "download_info": {"archive_info": archive}},
        ]
    }


def test_lock_of_a_report() -> None:
    text = lock_files.lock_of(_report(hashes={"sha256": "ab" * 32}))
    assert text.splitlines()[2:] == [f"Zope.Event==6.2 --hash=sha256:{'ab' * 32}"]


def test_a_file_without_a_hash_is_not_locked() -> None:
    with pytest.raises(ValueError, match=r"no SHA-256 for Zope.Event 6.2"):
        lock_files.lock_of(_report())

"""The tutorial on a camera in C++, done from top to bottom."""

from __future__ import annotations

from pathlib import Path

import tutorials
from bundles import need
from cpp_project import Libraries


def test_the_tutorial_works(libraries: Libraries, tmp_path: Path, preloaded: Path) -> None:
    need("torch", "onnxruntime")
    here = {"-DONNXRUNTIME_ROOT=/path/to/onnxruntime": " ".join(f"'{word}'" for word in libraries.cmake())}
    printed = tutorials.follow(tutorials.FOLDER / "camera.md", tmp_path, here, commands=preloaded)
    named = [line.split()[2] for line in printed.splitlines() if " s  " in line]
    assert named[0] == "turn_left" and named[-1] == "grow"

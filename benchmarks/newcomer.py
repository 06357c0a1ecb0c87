"""Time a newcomer's path: from a fresh clone to an answer of a server and of a C++ program, following only the pages.

    PYTHONPATH=tests/support python benchmarks/newcomer.py

The first part is the README's command in a clone of this repository; pip may find its packages in a cache. The others
are the tutorials, step by step, with the versions of this environment. A stand-in for Triton's back ends serves; it,
ONNX Runtime's headers and the other C++ libraries are on the disk before. Writes ``results/newcomer.json``.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tutorials
from capabilities import fetched
from common import environment, write_results
from cpp_project import onnxruntime_release

ROOT = Path(__file__).parents[1]
Steps = list[dict[str, Any]]


def clone_and_demo(work: Path) -> Steps:
    """Clone, install, export: the first command of the README."""
    steps: Steps = []
    for name, command, folder in (
        ("git clone", ["git", "clone", "--quiet", str(ROOT), "clone"], work),
        ("make venv: install what CI has", ["make", "--silent", "venv", "LOCKED=1"], work / "clone"),
        ("make demo: export, check, compile an engine", ["make", "--silent", "demo"], work / "clone"),
    ):
        begin = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        steps.append({"step": name, "seconds": time.perf_counter() - begin})
    return steps


def follow(
    name: str,
    work: Path,
    replaced: Mapping[str, str] | None = None,
    start_server: Callable[[], Mapping[str, str]] | None = None,
) -> Steps:
    """Do what a tutorial says; add up the time of each of its parts."""
    seconds: dict[str, float] = {}

    def done(block: tutorials.Block, taken: float) -> None:
        seconds[block.heading] = seconds.get(block.heading, 0.0) + taken

    folder = work / name
    folder.mkdir(exist_ok=True)
    tutorials.follow(tutorials.FOLDER / f"{name}.md", folder, replaced, start_server, done)
    return [{"step": heading, "seconds": taken} for heading, taken in seconds.items()]


def to_triton(work: Path) -> Steps:
    """The tutorial on Triton."""
    with ExitStack() as servers:
        start = tutorials.triton_start(fetched("fetch_triton.py", "tritonserver"), work / "triton", work, servers)
        return follow("triton", work, None, start)


def to_cpp(work: Path) -> Steps:
    """The tutorial on a camera in C++."""
    usr = fetched("fetch_cpp_libraries.py", "cpp") / "usr"
    root = onnxruntime_release(work / "onnxruntime", usr)
    given = f"-DCMAKE_PREFIX_PATH='{usr}' -DONNXRUNTIME_ROOT='{root}'"
    return follow("camera", work, {"-DONNXRUNTIME_ROOT=/path/to/onnxruntime": given})


def main() -> None:
    """Measure all three."""
    results: dict[str, Any] = {"environment": environment()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        results["paths"] = {
            "From a clone to the demo": clone_and_demo(work),
            "To an answer of a Triton server": to_triton(work),
            "To an answer of a C++ program": to_cpp(work),
        }
    path = write_results("newcomer", results)
    print(json.dumps(results["paths"], indent=2))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

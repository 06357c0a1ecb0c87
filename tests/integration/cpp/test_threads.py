"""A system that starts no more threads, as containers with a limit on processes: the work is done all the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cpp_project import TESTS, WARNINGS, Cpp, Libraries, run

from vivit_export.deploy.cpp.deploy import PROJECT

pytestmark = pytest.mark.needs_onnxruntime


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("few") / "few_threads.so"
    run("g++", "-std=c++17", "-shared", "-fPIC", *WARNINGS, TESTS / "few_threads.cpp", "-o", library, "-ldl")
    return library


def environment(library: Path, threads: int) -> dict[str, str]:
    return {**os.environ, "LD_PRELOAD": str(library), "VIVIT_TEST_THREADS": str(threads)}


@pytest.mark.parametrize("threads", [0, 1, 5, 100])
def test_a_loop_runs_on_the_threads_that_there_are(
    libraries: Libraries, few_threads: Path, tmp_path: Path, threads: int
) -> None:
    program = tmp_path / "many_threads"
    flags = ["-std=c++17", "-pthread", *WARNINGS, f"-I{PROJECT / 'include'}", *libraries.includes()]
    run("g++", *flags, TESTS / "many_threads.cpp", "-o", program)
    assert run(program, env=environment(few_threads, threads)) == "500500\n500\n"


@pytest.mark.parametrize("threads", [0, 1, 2, 3])
def test_a_program_does_not_abort(cpp: Cpp, few_threads: Path, threads: int) -> None:
    """ONNX Runtime has threads of its own."""
    command: list[str | Path] = [cpp.vivit_run, cpp.bundle, cpp.video, "--repeat", "1", "--top", "1"]
    done = subprocess.run(
        command, env=environment(few_threads, threads), capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        assert (done.returncode, done.stderr.count("\n")) == (7, 1), done.stderr
        assert done.stderr.startswith("error: ")
    else:
        assert done.stdout.splitlines()[1].endswith("%  up")

"""A system that starts no more threads, as containers with a limit on processes: the work is done all the same."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from control_groups import CASES, write_groups
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


@pytest.mark.parametrize(("own", "files", "expected"), CASES)
def test_cores_are_counted_as_in_python(
    cpp: Cpp, tmp_path: Path, own: str, files: dict[str, str], expected: int | None
) -> None:
    all_groups, own_groups = write_groups(tmp_path, own, files)
    (told,) = cpp.ask([{"do": "cores", "groups": str(all_groups), "own": str(own_groups)}])
    assert told["cores"] == min(expected or 1000, len(os.sched_getaffinity(0)))


def test_a_process_that_may_use_one_core_counts_one(cpp: Cpp, tmp_path: Path) -> None:
    (core,) = list(os.sched_getaffinity(0))[:1]
    request = '[{"do": "cores", "groups": "gone", "own": "gone"}]'
    path = tmp_path / "one-core.json"
    path.write_text(request)
    done = run("taskset", "--cpu-list", str(core), cpp.probe, path)
    assert json.loads(done) == {"cores": 1}

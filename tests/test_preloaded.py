"""The stand-ins for Python and the commands behave as these do; see `preloaded`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from bundles import need

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(preloaded: Path) -> Run:
    need("torch")

    def run(name: str, *words: str, **options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([preloaded / name, *words], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]

    return run


def test_words_folder_environment_and_files(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOMETHING", "else")
    code = "import os, sys; print(sys.argv, os.getcwd(), os.environ['SOMETHING'], sys.stdin.read(), __name__)"
    done = run("python", "-c", code, "a b", input="given")
    assert done.stdout == f"['-c', 'a b'] {tmp_path} else given __main__\n"
    (tmp_path / "script.py").write_text("import sys, beside; print(sys.argv, beside.X, file=sys.stderr)")
    (tmp_path / "beside.py").write_text("X = 1")
    assert run("python", "script.py", "x").stderr == "['script.py', 'x'] 1\n"
    assert run("python", "-m", "json.tool", input="[1]").stdout == "[\n    1\n]\n"
    assert run("python", "-X", "utf8", "-c", "print(1)").stdout == "1\n"


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, ""),
    ],
)
def test_how_it_ends(run: Run, code: str, status: int, said: str) -> None:
    done = run("python", "-c", code)
    assert done.returncode == status
    assert done.stderr.endswith(said)


def test_commands(run: Run, tmp_path: Path) -> None:
    assert "Export, build, check and run ViViT bundles." in run("vivit", "--help").stdout
    done = run("vivit", "inspect", str(tmp_path))
    assert done.returncode == 3 and done.stderr.splitlines()[-1].startswith(f"error: {tmp_path} has no bundle.json")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_it_and_nothing_is_left(run: Run, preloaded: Path, number: signal.Signals) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = [str(preloaded / "python"), "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        fork = psutil.Process(int(process.stdout.readline()))
        os.kill(process.pid, number)
        until = time.monotonic() + 10
        while fork.is_running() and fork.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert process.returncode != 0


def test_a_program_that_is_killed_locks_no_other(preloaded: Path) -> None:
    """Progress bars of tqdm, which transformers draws, take a lock that forks would share and the dead never return."""
    need("torch")
    hold = (
        "import time; from tqdm.auto import tqdm; tqdm.get_lock().acquire(); print('held', flush=True); time.sleep(99)"
    )
    draw = "from tqdm.auto import tqdm; print(sum(tqdm(range(4))))"
    python, environment = str(preloaded / "python"), {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([python, "-c", hold], stdout=subprocess.PIPE, text=True, env=environment) as holding:
        assert holding.stdout is not None and holding.stdout.readline() == "held\n"
        holding.kill()
    done = subprocess.run([python, "-c", draw], capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert done.stdout == "6\n"

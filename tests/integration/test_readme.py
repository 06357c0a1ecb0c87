"""Every command in the README is run, and what it shows is compared with what they print."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from fractions import Fraction
from importlib.metadata import metadata
from pathlib import Path

import pytest
from make_demo_clips import Format, encode_clip
from triton_server import Served

from vivit_export import demo
from vivit_export.demo.motion import LABELS, render_clip

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


COMMANDS = [
    line.split("#")[0].strip()
    for block in blocks("")
    for line in block.splitlines()
    if line.startswith(("vivit", "vivit-export"))
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's example paths exist; commands run in it one after the other."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(demo.checkpoint_path(), folder / "path/to/checkpoint")
    shutil.copytree(demo.clips_path(), folder / "path/to/videos")
    make_many_videos(folder / "path/to/many/videos")
    return folder


def make_many_videos(folder: Path) -> None:
    """As few as a calibration takes, by the tool that makes the demo's."""
    folder.mkdir(parents=True)
    form = Format(96, 72, Fraction(25), 0.4)
    for i in range(32):
        frames = render_clip(LABELS[i % 8], seed=3_100_000_000 + i, num_frames=10, height=72, width=96)
        encode_clip(folder / f"{i}.mp4", frames, form)


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    outer_make = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # `make test` runs us: ours shall not know
    inherited = {name: value for name, value in os.environ.items() if name not in outer_make}
    environment = {**inherited, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)


def shape_of(output: str) -> list[str]:
    """Output without its figures: numbers, versions and times change, words do not."""
    lines = [re.sub(r"[\d.]+(?:e-?\d+)?(?:\+\w+)?", "N", line).rstrip() for line in output.strip().splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines]


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.needs_rtx
@pytest.mark.parametrize("command", COMMANDS)
def test_command_works(command: str, workplace: Path) -> None:
    done = run(shlex.split(command), workplace)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.needs_rtx
def test_make_demo_prints_what_the_readme_shows() -> None:
    if not (ROOT / ".venv/.ready").exists():
        pytest.skip("needs the .venv of `make venv`; this Python is another one")
    done = run(["make", "--no-print-directory", "--silent", "demo"], ROOT)
    assert done.returncode == 0, done.stderr
    (shown,) = blocks("text")[:1]
    assert shape_of(done.stdout) == shape_of(shown)


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("command", [line.split("#")[0].strip() for line in "".join(blocks("sh")).splitlines()])
def test_command_works_on_a_server(command: str, served: Served, workplace: Path) -> None:
    assert "triton://localhost:8001/demo" in command
    here = {"localhost:8001": f"127.0.0.1:{served.server.grpc}", "out/rtx4090": str(served.bundle.path)}
    for shown, real in here.items():
        command = command.replace(shown, real)
    done = run(shlex.split(command), workplace)
    assert done.returncode == 0, done.stderr
    assert done.stdout and f"127.0.0.1:{served.server.grpc}" in done.stdout + done.stderr


def test_make_test_runs_all_tests() -> None:
    done = run(["make", "--no-print-directory", "--dry-run", "test"], ROOT)
    assert done.returncode == 0
    tests = shlex.split(done.stdout.splitlines()[-1])
    assert tests[0].endswith("/python") and tests[1:3] == ["-m", "pytest"]
    # In several processes; no path is named, nothing left out. One that dies fails the run, which else could hang.
    how = "--numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0"
    assert tests[3:] == how.split()


def test_python_example_works(workplace: Path) -> None:
    (example,) = blocks("python")
    done = run([sys.executable, "-c", example], workplace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8 ('left'")


def test_extras_that_are_named_exist() -> None:
    named = set(re.search(r'"vivit-export\[(.*?)\]"', README)[1].split(",")) | {"gpu"}  # type: ignore[index]
    assert named <= set(metadata("vivit-export").get_all("Provides-Extra") or ())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target

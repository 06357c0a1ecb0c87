"""Ctrl-C and SIGTERM in every stage: exit 130, and the disk and the process list are as before."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from checkpoints import Checkpoints
from console import BIN, Exported, tree

SECONDS_TO_REACH = 60
SIGNALS = [signal.SIGINT, signal.SIGTERM]
SENTENCE = "error: interrupted; nothing was written\n"


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS_TO_REACH
    while not condition():
        assert time.monotonic() < deadline, "the stage was not reached"
        time.sleep(0.01)


class Server:
    """Runs commands one at a time; see `interruptible`."""

    def __init__(self, checkpoint: Path) -> None:
        script = Path(__file__).parents[1] / "support/interruptible.py"
        self._process = subprocess.Popen(
            [sys.executable, script, checkpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.answer() == "ready"

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def start(self, **request: Any) -> psutil.Process:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return psutil.Process(self.answer())

    def end(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server(checkpoints: Checkpoints) -> Iterator[Server]:
    started = Server(checkpoints.folder())
    yield started
    started.end()


def interrupt(
    server: Server,
    tmp_path: Path,
    arguments: list[str],
    stage: str,
    number: signal.Signals,
    *,
    hold: bool,
    times: int = 1,
    pause: float = 0.2,
) -> str:
    """Run a command, send it a signal in a stage, check its end and return its stderr."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    before = tree(home)
    output = tmp_path / "output"
    process = server.start(args=arguments, cwd=str(home), output=str(output), stage=stage, hold=hold)
    stages = output.with_suffix(".stages")
    wait_for(lambda: stages.exists() and stage in stages.read_text().splitlines())
    if stage.startswith("compile") and not hold:
        wait_for(process.children)
    time.sleep(pause)
    family = process.children(recursive=True)
    assert any(home.rglob(".*.part")) == (not stage.startswith(("load", "verify")))
    process.send_signal(number)
    for _ in range(times - 1):
        time.sleep(0.02)
        with contextlib.suppress(psutil.NoSuchProcess):  # it was quick
            process.send_signal(number)
    assert server.answer() == 130
    assert tree(home) == before
    assert not psutil.wait_procs(family, timeout=5)[1]  # one that was being started ends by itself
    assert not output.with_suffix(".stdout").read_text()
    stderr = output.with_suffix(".stderr").read_text()
    assert stderr.endswith(SENTENCE)
    assert "Traceback" not in stderr
    return stderr


STAGES = [
    ("load the checkpoint", True),
    ("trace the network", False),
    ("read the clips", True),
    ("run eager fp16 on 8 clips", True),
    ("check the graph against eager", True),
    ("write the bundle", True),
]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("stage", "hold"), STAGES)
def test_in_every_stage_of_an_export(
    server: Server, tmp_path: Path, checkpoints: Checkpoints, stage: str, hold: bool, number: signal.Signals
) -> None:
    arguments = ["export", str(checkpoints.folder()), "--fp16", "--target", "onnx", "-o", "a/b/out"]
    stderr = interrupt(server, tmp_path, arguments, stage, number, hold=hold)
    assert f"failed: {stage}" in stderr


@pytest.mark.needs_rtx
@pytest.mark.parametrize("number", SIGNALS)
def test_while_the_compiler_runs(
    server: Server, tmp_path: Path, checkpoints: Checkpoints, number: signal.Signals
) -> None:
    options = ["--fp16", "--target", "tensorrt-rtx", "--sm", "89", "--no-check", "-o", "out"]
    arguments = ["export", str(checkpoints.folder()), *options]
    interrupt(server, tmp_path, arguments, "compile tensorrt-rtx-sm89", number, hold=False, times=2, pause=0)


@pytest.mark.needs_rtx
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("stage", "hold"),
    [("verify the bundle", True), ("compile tensorrt-rtx-sm89", False), ("write the bundle", True)],
)
def test_in_every_stage_of_a_build(
    server: Server, tmp_path: Path, demo_bundle: Path, stage: str, hold: bool, number: signal.Signals
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    demo_bundle.rename(home / "demo")
    arguments = ["build", "demo", "--target", "tensorrt-rtx", "--sm", "89"]
    interrupt(server, tmp_path, arguments, stage, number, hold=hold)


def test_a_closed_terminal_cleans_up_too(server: Server, tmp_path: Path, checkpoints: Checkpoints) -> None:
    arguments = ["export", str(checkpoints.folder()), "--target", "onnx", "-o", "out"]
    interrupt(server, tmp_path, arguments, "read the clips", signal.SIGHUP, hold=True)


def test_an_impatient_user_presses_twice(server: Server, tmp_path: Path, checkpoints: Checkpoints) -> None:
    arguments = ["export", str(checkpoints.folder()), "--target", "onnx", "-o", "a/out"]
    interrupt(server, tmp_path, arguments, "trace the network", signal.SIGINT, hold=False, times=3)


def test_while_torch_is_being_loaded(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [BIN / "vivit-export", "demo", "--target", "onnx", "--no-check"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    wait_for(lambda: "libtorch" in maps.read_text())
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)  # Python is on its way out: that takes a while with torch
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", SENTENCE)
    assert not os.listdir(tmp_path)


def test_what_a_bench_measured_is_kept_and_labelled_partial(demo_export: Exported, tmp_path: Path) -> None:
    options = ["--engine", "onnxruntime-cpu", "--rounds", "100000", "--anyway", "--json"]
    said = tmp_path / "stderr"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [BIN / "vivit", "bench", demo_export.bundle, *options], stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    wait_for(lambda: "check their drift" in said.read_text())
    time.sleep(1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    told = json.loads(process.communicate(timeout=30)[0])
    assert process.returncode == 130
    assert told["partial"] and 0 < told["contenders"]["onnxruntime-cpu"]["batches"]["1"]["rounds"] < 100000
    assert not psutil.wait_procs(family, timeout=5)[1]

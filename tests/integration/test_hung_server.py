"""Ctrl-C while a server hangs: the command ends at once, not when the request times out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from console import BIN
from triton_server import Served, TritonServer, running

from vivit_export.demo import clips_path

pytestmark = pytest.mark.needs_onnxruntime
LEFT = clips_path() / "left_320x240_25fps.mp4"
AT_ONCE_SECONDS = 10.0  # a request times out after 60, and is a second away on a busy machine
SENTENCE = "error: interrupted; nothing was written\n"


@pytest.fixture(scope="module")
def own(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of our own: it is stopped in its tracks."""
    folder = tmp_path_factory.mktemp("hung")
    with running(TritonServer(served.installed, served.backends, served.repositories[:1], folder)) as server:
        yield server


@contextmanager
def hanging(server: TritonServer) -> Iterator[None]:
    """While this lasts the server keeps its connections, and answers nothing."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


@contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [BIN / "vivit", *arguments, "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> str:
    """Send Ctrl-C, and return what was printed on stdout."""
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=AT_ONCE_SECONDS)
    assert time.monotonic() - begun < AT_ONCE_SECONDS
    assert (process.returncode, stderr) == (130, SENTENCE)
    return stdout


@pytest.mark.parametrize(
    ("model", "protocol", "query"),
    [
        ("demo", "grpc", ""),
        ("demo", "http", ""),
        ("demo", "grpc", "?shared_memory=yes"),
        ("demo-video", "grpc", ""),
        ("demo-video", "http", ""),
    ],
)
def test_in_the_middle_of_a_folder(own: TritonServer, model: str, protocol: str, query: str) -> None:
    with started("predict", own.url(model, protocol, query), *[LEFT] * 2000) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # the first answer is there
        with hanging(own):
            time.sleep(0.5)
            interrupt(process)


@pytest.mark.parametrize("scheme", ["triton", "triton+http"])
@pytest.mark.parametrize("verb", ["predict", "check"])
def test_a_port_that_never_speaks(served: Served, scheme: str, verb: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/demo"
        what = (address, LEFT) if verb == "predict" else (served.bundle.path, "--engine", address)
        with started(verb, *what) as process, silent.accept()[0]:
            time.sleep(0.2)
            assert interrupt(process) == ""

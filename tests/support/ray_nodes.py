"""Real Ray on loopback: a head and more nodes as processes of their own, all of which end with the test."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_RAY = "from ray.scripts.scripts import main; main()"
_TRIES = 3
_SECONDS = 240  # to start, on a machine that is busy


class Nodes:
    """Nodes of one cluster.

    Args:
        folder: for all that Ray writes; short, as its sockets' names have 107 characters at most.
        version: of Ray that the head claims to be.

    Attributes:
        address: HOST:PORT.
        env: of processes that connect.
    """

    def __init__(self, folder: Path, version: str | None = None) -> None:
        folder.mkdir()
        self._folder, self._started = folder, list[subprocess.Popen[bytes]]()
        self.env = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_health_check_period_ms": "500",  # a node that was killed is missed in seconds, not half a minute
            "RAY_health_check_timeout_ms": "1000",
            "RAY_health_check_initial_delay_ms": "1000",
        }
        claim = f"import ray; ray.__version__ = {version!r}; " if version else ""
        options = ("--head", "--port=0", "--include-dashboard=false", "--disable-usage-stats")
        log = self._start("head", claim, *options)
        try:
            self.address = self._wait_for(log, r"--address='([\d.]+:\d+)'")
        except BaseException:
            self.end()
            raise

    def add(self, name: str) -> subprocess.Popen[bytes]:
        """Start another node, and return its process."""
        log = self._start(name, "", f"--address={self.address}")
        self._wait_for(log, r"(Ray runtime started)")
        return self._started[-1]

    def end(self) -> None:
        """Kill every process of every node."""
        for process in self._started:
            kill(process)

    def _start(self, name: str, claim: str, *options: str) -> Path:
        log = self._folder / f"{name}.log"
        common = ("--num-cpus=2", "--block", "--node-ip-address=127.0.0.1", "--object-store-memory=200000000")
        place = () if "--head" not in options else (f"--temp-dir={self._folder}",)
        command = [sys.executable, "-c", claim + _RAY, "start", *options, *common, *place]
        with log.open("wb") as file:
            self._started.append(subprocess.Popen(command, env=self.env, stdout=file, stderr=subprocess.STDOUT))
        return log

    def _wait_for(self, log: Path, pattern: str) -> str:
        deadline = time.monotonic() + _SECONDS
        while not (found := re.search(pattern, log.read_text(errors="replace"))):
            assert self._started[-1].poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
        return found[1]


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a node: all of its processes at once, as when a machine loses its power."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid)
        for one in (family, *family.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()


@contextmanager
def nodes(version: str | None = None) -> Iterator[Nodes]:
    """Start a head with two CPUs."""
    folder = Path(tempfile.mkdtemp(prefix="vr-"))
    started: Nodes | None = None
    try:
        started = _started(folder, version)
        yield started
    finally:
        if started is not None:
            started.end()
        shutil.rmtree(folder, ignore_errors=True)


def _started(folder: Path, version: str | None) -> Nodes:
    """Start them; again if the machine is so busy that Ray gives up, which it does after 30 seconds."""
    for number in range(_TRIES - 1):
        with contextlib.suppress(AssertionError):
            return Nodes(folder / str(number), version)
    return Nodes(folder / str(_TRIES), version)

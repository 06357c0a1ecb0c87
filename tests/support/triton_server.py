"""A real tritonserver on loopback, over a stand-in for the back ends that no package brings (``triton_backend/``)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from bundles import Bundles, add_plan, need
from capabilities import fetched, missing

from vivit_export.bundle import Bundle

ROOT = Path(__file__).parents[2]
VIEWS = (2, 3)
READY_WITHIN_SECONDS = 60.0  # it takes less than two; a stub that cannot start hangs for ever
STOPPED_WITHIN_SECONDS = 30.0


def make_backends(installed: Path, folder: Path) -> Path:
    """A folder with the Python back end and our stand-ins for onnxruntime and tensorrt."""
    python = folder / "python"
    python.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy(installed / "backends/python" / name, python)  # Triton refuses the library as a link
    version = "{}.{}".format(*sys.version_info[:2])
    stub = installed / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        missing("tritonserver", f"it has no Python back end for Python {version}")
    stub.chmod(0o755)
    (python / stub.name).symlink_to(stub)  # a copy would not find its libraries
    for name in ("onnxruntime", "tensorrt"):
        shutil.copytree(
            ROOT / "tests/support/triton_backend", folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return folder


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class TritonServer:
    """A server that is started, waited for until it is ready, and stopped.

    ``options`` are for its command line, ``variables`` for its environment.
    """

    def __init__(
        self,
        installed: Path,
        backends: Path,
        repositories: Sequence[Path],
        folder: Path,
        options: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._variables = dict(variables or {})
        self._installed, self._backends, self._repositories = installed, backends, list(repositories)
        self._options = list(options)
        self._folder = folder
        self.log = folder / "tritonserver.log"
        self.http, self.grpc, self.metrics = free_port(), free_port(), free_port()
        self._shared = f"vivit-test-{os.getpid()}-{self.http}-"  # what its memory is called
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, model: str, protocol: str = "grpc", query: str = "") -> str:
        scheme, port = ("triton+http", self.http) if protocol == "http" else ("triton", self.grpc)
        return f"{scheme}://127.0.0.1:{port}/{model}{query}"

    def get(self, path: str, port: int | None = None) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port or self.http}/{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def start(self) -> None:
        ports = {"http": self.http, "grpc": self.grpc, "metrics": self.metrics}
        command = [
            str(self._installed / "bin/tritonserver"),
            *(f"--model-repository={repository}" for repository in self._repositories),
            f"--backend-directory={self._backends}",
            f"--backend-config=python,shm-region-prefix-name={self._shared}",
            *(f"--{name}-address=127.0.0.1" for name in ports),
            *(f"--{name}-port={port}" for name, port in ports.items()),
            "--allow-gpu-metrics=false",
            "--disable-auto-complete-config",
            "--exit-timeout-secs=5",
            *self._options,
        ]
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
            **self._variables,
        }
        with self.log.open("ab") as log:
            # Python in the server looks in the working folder first: the code that is tested, whichever is installed.
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None:
                raise AssertionError(f"tritonserver ended with {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"tritonserver was not ready in {READY_WITHIN_SECONDS} s:\n{self.tail()}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(STOPPED_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"tritonserver did not stop:\n{self.tail()}") from None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        assert self.process is not None
        stubs = psutil.Process(self.process.pid).children(recursive=True) if self.is_running else []
        self.process.kill()
        self.process.wait()
        for stub in stubs:  # which would wait for it for ever, and compute meanwhile
            with suppress(psutil.NoSuchProcess):
                stub.kill()
        for left in Path("/dev/shm").glob(f"{self._shared}*"):  # it cannot remove it any more
            left.unlink(missing_ok=True)

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _is_ready(self) -> bool:
        try:
            self.get("v2/health/ready")
        except (urllib.error.URLError, OSError):
            return False
        return True


@contextmanager
def running(server: TritonServer) -> Iterator[TritonServer]:
    """Start a server, and stop it if the test has not."""
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            server.stop()


@dataclass(frozen=True)
class Served:
    """A running server and what it serves: ``demo`` (ONNX Runtime), ``plan`` and ``plans`` (TensorRT's configuration).

    ``demo-video`` takes encoded videos, and ``views-video`` averages 2x3 views of them.

    Attributes:
        server: running.
        bundle: the demo in fp32; the plans hold its graph.
        warmed_up: statistics by model, before anybody asked for anything.
        installed: folder of the server.
        backends: folder of its back ends.
        repositories: what it was started with.
    """

    server: TritonServer
    bundle: Bundle
    warmed_up: dict[str, dict[int, int]]
    installed: Path
    backends: Path
    repositories: list[Path]

    def executions(self, model: str) -> dict[int, int]:
        """How many batches of each size were run so far."""
        return executions(self.server, model)

    def help(self) -> str:
        """What ``tritonserver --help`` prints."""
        command = [str(self.installed / "bin/tritonserver"), "--help"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr


def executions(server: TritonServer, model: str) -> dict[int, int]:
    (stats,) = json.loads(server.get(f"v2/models/{model}/stats"))["model_stats"]
    return {int(row["batch_size"]): int(row["compute_infer"]["count"]) for row in stats["batch_stats"]}


def _make_repositories(bundles: Bundles, folder: Path) -> tuple[Bundle, list[Path]]:
    """Deploy the demo for each back end. What stands for plans holds the demo's graph."""
    from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
    from vivit_export.runtime.predict import adapt_contract

    bundle = bundles.demo(check=True, num_clips=3)
    graph = bundle.model.read_bytes()
    profiles = [{"min": 1, "opt": 2, "max": 4}]
    views = adapt_contract(bundle.contract, stride=4, short="repeat", views=VIEWS)
    made = [
        deploy_triton(bundle, folder / "onnx", TritonOptions(name="demo", ensemble=True)),
        deploy_triton(bundle, folder / "views", TritonOptions(name="views", ensemble=True, contract=views)),
    ]
    for name, sms in (("plan", (90,)), ("plans", (89, 90))):
        copy = bundles.copy(folder / f"bundle-{name}", check=True, num_clips=3)
        for sm in sms:
            planned = add_plan(copy, f"sm{sm}", graph, sms=[sm], profiles=profiles)
        made.append(deploy_triton(planned, folder / "plans", TritonOptions(name=name)))  # one repository for both
    return bundle, list(dict.fromkeys(deployment.path for deployment in made))


@contextmanager
def serve_demo(bundles: Bundles, folder: Path) -> Iterator[Served]:
    """Deploy the demo and serve it."""
    need("onnxruntime", "tritonclient")
    installed = fetched("fetch_triton.py", "tritonserver")
    backends = make_backends(installed, folder / "backends")
    bundle, repositories = _make_repositories(bundles, folder)
    with running(TritonServer(installed, backends, repositories, folder)) as server:
        warmed_up = {name: executions(server, name) for name in ("demo", "plan", "plans")}
        yield Served(server, bundle, warmed_up, installed, backends, repositories)

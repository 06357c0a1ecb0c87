"""Python and the console commands in processes that are forked from one that has loaded everything.

What loads torch and traces the demo takes seconds before it does what a test is about. Here, one process does so once,
and forks for each program that is started as ``python``, ``vivit`` or ``vivit-export`` from the folder of the fixture
`preloaded`: with the arguments, folder, environment and open files of the small program that stands there, which ends
as the fork does and takes it along if it is killed. What the fork starts as `sys.executable` is forked, too.

What a module reads from the environment while it is loaded cannot be had so: with those variables, and with options of
Python's own, the programs run as usual.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

BIN = Path(sys.executable).parent
_NAMES = ("python", "vivit", "vivit-export")
_CLIENT = """#!{python} -SE
import json, os, signal, socket, sys

name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
loaded_so = os.environ.get("OMP_NUM_THREADS") == "1" and "HF_ENDPOINT" not in os.environ
if not loaded_so or (name == "python" and (not words or (words[0][0] == "-" and words[0] not in ("-m", "-c")))):
    os.execv({bin!r} + "/" + name, [{bin!r} + "/" + name, *words])
server = socket.socket(socket.AF_UNIX)
server.connect({place!r})
asked = json.dumps([name, words, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
server.sendall(asked)
answers = server.makefile("rb")
child = int.from_bytes(answers.read(8), "big")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _frame: os.kill(child, number))
end = answers.read(4)
code = int.from_bytes(end, "big", signed=True) if end else -signal.SIGSEGV
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the programs, to put in front of the PATH; the first that is run waits until all is loaded."""
    folder = tmp_path_factory.mktemp("preloaded")
    place = folder / "socket"
    for name in _NAMES:
        client = folder / name
        client.write_text(_CLIENT.format(python=sys.executable, bin=str(BIN), place=str(place)))
        client.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen(16)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        here = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
        command = [sys.executable, __file__, str(listening.fileno()), str(folder / "python")]
        server = subprocess.Popen(command, pass_fds=[listening.fileno()], env={**environment, "PYTHONPATH": here})
    try:
        yield folder
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def forked_workers(preloaded: Path) -> Iterator[None]:
    """Let what this process starts as `sys.executable` be forked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(preloaded / "python"))
        yield


def _serve(listening: socket.socket) -> NoReturn:
    """Load, then fork for each request."""
    import signal

    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _be_the_program(connection)
        connection.close()


def _load() -> None:
    import onnxruntime  # noqa: F401
    from traces import traced_once

    import vivit_export.cli
    import vivit_export.export.pipeline
    import vivit_export.export.verify
    import vivit_export.runtime.predict  # noqa: F401
    from vivit_export.export.checkpoint.load import load_checkpoint

    pytest.MonkeyPatch().setattr("vivit_export.export.graph.build.trace", traced_once)
    traced_once(load_checkpoint("demo"), ("logits", "embedding"))


def _be_the_program(connection: socket.socket) -> NoReturn:
    import atexit
    import json
    import signal
    import traceback

    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    name, words, folder, environment = json.loads(connection.makefile("rb").read(int.from_bytes(head, "big")))
    connection.sendall(os.getpid().to_bytes(8, "big"))
    _end_with(connection)
    code = 1
    try:
        _take_over(files, folder, environment)
        _own_locks()
        try:
            _run(name, words)
            code = 0
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else int(e.code is not None)
            if isinstance(e.code, str):
                sys.stderr.write(f"{e.code}\n")
        except KeyboardInterrupt:
            traceback.print_exc()
            code = -signal.SIGINT
        except BaseException:
            traceback.print_exc()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        connection.sendall(code.to_bytes(4, "big", signed=True))
        os._exit(code & 255)


def _end_with(connection: socket.socket) -> None:
    """Be killed when the other side closes, because it was killed."""
    import fcntl
    import signal

    set_signal = 10  # F_SETSIG of Linux, which Python does not name
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, set_signal, signal.SIGKILL)
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)


def _own_locks() -> None:
    """Give the bars of tqdm a lock of this process: the one that all forks share may be held by one that was killed."""
    import threading

    import tqdm  # type: ignore[import-untyped]

    pending: list[type] = [tqdm.tqdm]
    for kind in pending:
        pending += kind.__subclasses__()
        if kind is tqdm.tqdm or "_lock" in vars(kind):
            kind.set_lock(threading.RLock())  # type: ignore[attr-defined]


def _take_over(files: list[int], folder: str, environment: dict[str, str]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # the files may be of another kind
        buffering, errors = (1, "backslashreplace") if stream == "stderr" else (-1, None)
        number = ("stdin", "stdout", "stderr").index(stream)
        setattr(sys, stream, os.fdopen(number, mode, buffering, "utf-8", errors, closefd=False))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def _run(name: str, words: list[str]) -> None:
    import runpy

    if name != "python":
        from vivit_export import cli

        sys.argv = [name, *words]
        {"vivit": cli.vivit, "vivit-export": cli.vivit_export}[name]()
    elif words[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _listening, sys.executable = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    _serve(_listening)

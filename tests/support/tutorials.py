"""The pages of docs/tutorials: what they tell a reader to write and to run, done in order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/tutorials"
_BLOCK = re.compile(
    r"(?:^<!-- (?P<remark>.+?) -->\n)?^```(?P<language>\w*)(?: title=\"(?P<title>.+?)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_SECONDS = 300


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: ``sh`` is run.
        title: the file that it is; empty: none.
        text: what stands in it.
        remark: of the comment before it: ``exits with 5``, ``not run: why``, ``starts the server``.
        heading: of its part of the page.
    """

    language: str
    title: str
    text: str
    remark: str
    heading: str

    @property
    def exit_code(self) -> int:
        found = re.fullmatch(r"exits with (\d+)", self.remark)
        return int(found[1]) if found else 0

    @property
    def is_run(self) -> bool:
        return self.language == "sh" and not self.remark.startswith("not run: ")


def blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(m["language"], m["title"] or "", m["text"], m["remark"] or "", _heading(text[: m.start()]))
        for m in _BLOCK.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall(r"^```", text, re.MULTILINE)), f"{page.name}: a block is not understood"
    return found


def _heading(before: str) -> str:
    headings = [line for line in before.splitlines() if re.match("##? ", line)]
    return headings[-1].lstrip("# ") if headings else ""


def follow(
    page: Path,
    folder: Path,
    replaced: Mapping[str, str] | None = None,
    start_server: Callable[[], Mapping[str, str]] | None = None,
    done: Callable[[Block, float], object] = lambda _block, _seconds: None,
    commands: Path = Path(sys.executable).parent,
) -> str:
    """Do what a page says, in a folder; return all that the commands printed.

    Args:
        page: the tutorial.
        folder: where its reader works.
        replaced: what is called otherwise here.
        start_server: does what the block ``starts the server`` says, and returns more of what is called otherwise.
        done: told of each block that did something, and how many seconds that took.
        commands: folder with the programs of this package.
    """
    here, printed = dict(replaced or {}), []
    for block in blocks(page):
        begin = time.perf_counter()
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.remark == "starts the server":
            assert start_server is not None
            here.update(start_server())
            done(block, time.perf_counter() - begin)
        elif block.is_run:
            printed.append(_run(block, folder, here, commands))
            done(block, time.perf_counter() - begin)
        elif block.language == "text":
            _compare(block.text, printed[-1])
    return "".join(printed)


def triton_start(installed: Path, home: Path, work: Path, servers: ExitStack) -> Callable[[], Mapping[str, str]]:
    """What starts the server of the tutorial on Triton, with the stand-in for its back ends.

    Args:
        installed: a tritonserver.
        home: where the tutorial is followed.
        work: for what the server needs.
        servers: ends it.
    """
    from triton_server import TritonServer, make_backends, running

    def start() -> Mapping[str, str]:
        server = TritonServer(installed, make_backends(installed, work / "backends"), [home / "out/triton"], work)
        servers.enter_context(running(server))
        address = f"check.py --url http://127.0.0.1:{server.http}"
        return {"localhost:8001": f"127.0.0.1:{server.grpc}", "check.py": address}

    return start


def _compare(shown: str, printed: str) -> None:
    """Find the lines that a page shows among those that were printed, in order; numbers may differ."""
    lines = iter([_shape(line) for line in printed.splitlines()])
    for line in shown.splitlines():
        assert line == "…" or _shape(line) in lines, f"{line!r} is not in, or not in this place of:\n{printed}"


def _shape(line: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[\d.]+(?:e-?\d+)?", "N", line)).strip()


def _run(block: Block, folder: Path, replaced: Mapping[str, str], commands: Path) -> str:
    text = block.text
    for shown, real in replaced.items():
        text = text.replace(shown, real)
    outer = ("PYTEST_", "VIVIT_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**inherited, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = ["bash", "-euo", "pipefail", "-c", text]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            stdout, stderr = running.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGABRT)  # a Python program then says where all its threads are
            stdout, stderr = running.communicate()
            stderr += f"\nit took more than {_SECONDS} seconds"
    assert running.returncode == block.exit_code, f"{text}\n{stdout[-3000:]}\n{stderr[-8000:]}"
    return stdout

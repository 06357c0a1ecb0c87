"""Kill commands at random moments (SIGKILL), and look at what they leave: the old state or the new one, never a mix.

    python benchmarks/kills.py --kills 50

Each command changes something that exists. Half of the kills strike at any moment of it, half while it writes. After
each, the target must be whole, with every hash right; then the same command must succeed, say what it cleaned up, and
leave nothing else behind. Results are written to ``results/reliability/kills.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from common import RESULTS, environment, load_tool, write_results

from vivit_export.bundle import read_bundle
from vivit_export.demo import clips_path
from vivit_export.deploy.listing import read_deployment
from vivit_export.deploy.triton.repository import read_model

BIN = Path(sys.executable).parent
HIDDEN = re.compile(r"\.[^/]*\.vivit-[0-9a-f]{8}\.(part|old|moving)(/.*)?")
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "num_frames": 8,
        "image_size": 64, "tubelet_size": [2, 16, 16]}  # fmt: skip
_SECONDS = 600


@dataclass(frozen=True)
class Command:
    """A command that replaces something.

    Attributes:
        words: the command, in its folder.
        target: what it replaces, in the same folder.
        require_whole: raises an error unless the target is whole.
    """

    words: Sequence[str]
    target: str
    require_whole: Callable[[Path], object]


@dataclass
class Outcome:
    """What became of the kills of one command.

    Attributes:
        seconds: how long the command takes undisturbed.
        kills: how often it was killed.
        old, new: how often the target was as before, or as after.
        leftovers: how often something hidden was left.
        told: how often the next run said so.
        faults: what should not have happened.
    """

    seconds: float = 0.0
    kills: int = 0
    old: int = 0
    new: int = 0
    leftovers: int = 0
    told: int = 0
    faults: list[str] = field(default_factory=list)


def _whole_repository(path: Path) -> None:
    for model in ("m", "n"):
        deployment = read_model(path, model)
        _require_listed(path, deployment.files)


def _whole_deployment(path: Path) -> None:
    _require_listed(path, read_deployment(path).files)
    read_bundle(path / "bundle")


def _require_listed(path: Path, files: Any) -> None:
    for name, record in files.items():
        found = hashlib.sha256((path / name).read_bytes()).hexdigest()
        if found != record.sha256:
            raise ValueError(f"{name} is not what the listing says")


def _whole_tensors(path: Path) -> None:
    from safetensors.numpy import load_file

    if load_file(path)["embedding"].shape[0] != 2:
        raise ValueError("it has not two rows")


def _whole_json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


CLIPS = sorted(clips_path().glob("*.mp4"))
COMMANDS = {
    "export": Command(
        ["vivit-export", "checkpoint", "--fp16", "--target", "onnx", "--num-clips", "2", "-o", "bundle", "--force"],
        "bundle",
        read_bundle,
    ),
    "build": Command(
        ["vivit", "build", "bundle", "--target", "tensorrt-rtx", "--sm", "89", "--force"], "bundle", read_bundle
    ),
    "calibrate": Command(
        ["vivit", "calibrate", "demo", "--int8", "--calibration-clips", "32", "-o", "ranges.json", "--force"],
        "ranges.json",
        _whole_json,
    ),
    "bench --save": Command(
        ["vivit", "bench", "bundle", "--engine", "onnxruntime-cpu", "--rounds", "3", "--save"], "bundle", read_bundle
    ),
    "check --save": Command(
        ["vivit", "check", "bundle", "--engine", "onnxruntime-cpu", "--save"], "bundle", read_bundle
    ),
    "deploy cpp": Command(["vivit", "deploy", "cpp", "bundle", "app", "--force"], "app", _whole_deployment),
    "deploy triton": Command(
        ["vivit", "deploy", "triton", "bundle", "repository", "--name", "m", "--ensemble", "--force"],
        "repository",
        _whole_repository,
    ),
    "predict --embedding": Command(
        ["vivit", "predict", "bundle", *map(str, CLIPS[:2]), "--embedding", "e.safetensors", "--force"],
        "e.safetensors",
        _whole_tensors,
    ),
}  # fmt: skip


def prepare(home: Path) -> None:
    """Make a folder in which each command can run, with something to replace."""
    load_tool("make_checkpoint").make(home / "checkpoint", **TINY)
    _run(home, COMMANDS["export"].words)
    _run(home, ["vivit", "deploy", "triton", "bundle", "repository", "--name", "n"])
    for name in ("build", "calibrate", "deploy cpp", "deploy triton", "predict --embedding"):
        _run(home, COMMANDS[name].words)


def _run(home: Path, words: Sequence[str]) -> str:
    """Run a command that must succeed, and return what it says on stderr."""
    done = subprocess.run(
        [BIN / words[0], *words[1:]], cwd=home, env=_environment(home), capture_output=True, text=True, timeout=_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} exited with {done.returncode}: {done.stderr[-1000:]}")
    return done.stderr


def _environment(home: Path) -> dict[str, str]:
    (home / "tmp").mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(home / "tmp"), "XDG_CACHE_HOME": str(home / "cache"), "HF_HUB_OFFLINE": "1"}


def tree(path: Path) -> dict[str, str]:
    """The hash of every file below a path, or of the file itself; what is hidden and unfinished is left out."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    named = {str(p.relative_to(path)): p for p in files}
    return {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in named.items() if not HIDDEN.fullmatch(name)}


def hidden(home: Path) -> list[str]:
    """What is unfinished in a folder, and in its place for temporary files."""
    names = [str(p.relative_to(home)) for folder in (home, home / "tmp") for p in folder.glob(".*")]
    return [name for name in names if HIDDEN.fullmatch(name.removeprefix("tmp/"))]


def kill(home: Path, command: Command, moment: float, *, writing: bool) -> bool:
    """Start a command, and kill it.

    Args:
        home: where to run it.
        command: the command.
        moment: seconds to wait.
        writing: count them from when something unfinished appears.

    Returns:
        Whether it was killed; False: it had ended.
    """
    with subprocess.Popen(
        [BIN / command.words[0], *command.words[1:]],
        cwd=home,
        env=_environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while writing and process.poll() is None and not hidden(home):
            time.sleep(0.001)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        was_running = process.poll() is None
        process.send_signal(signal.SIGKILL)
    return was_running


def strike(home: Path, name: str, outcome: Outcome, chance: random.Random, span: tuple[float, float]) -> None:
    """Kill a command once, judge what it left, and run it again; one fault at most is added.

    Args:
        home: from `prepare`.
        name: of the command.
        outcome: receives the figures.
        chance: decides the moment.
        span: seconds that the command takes, and of these, that it writes.
    """
    command = COMMANDS[name]
    target = home / command.target
    before, writing = tree(target), outcome.kills % 2 == 1
    moment = chance.uniform(0, span[1] if writing else span[0])
    if not kill(home, command, moment, writing=writing):
        return  # too late: it does not count
    outcome.kills += 1
    left = hidden(home)
    outcome.leftovers += bool(left)
    after = tree(target)
    try:
        command.require_whole(target)
        said = _run(home, command.words)
        command.require_whole(target)
    except Exception as e:  # whatever it is, it is what this looks for
        outcome.faults.append(f"after {moment:.2f} s{' of writing' if writing else ''}: {e!r:.300}")
        return
    outcome.old += after == before
    outcome.new += after != before
    told = [path for path in left if f"removed {home / path}" in said or "finished a deployment" in said]
    outcome.told += bool(left) and len(told) == len(left)
    if bool(left) and len(told) < len(left):
        outcome.faults.append(f"after {moment:.2f} s: of {left}, only {told} were told: {said[-300:]}")
    if again := hidden(home):
        outcome.faults.append(f"after {moment:.2f} s: {again} stayed")


def measure(home: Path, name: str) -> tuple[float, float]:
    """Seconds that a command takes, and of these, from when something unfinished appears to its end."""
    command = COMMANDS[name]
    start = time.monotonic()
    first = None
    with subprocess.Popen(
        [BIN / command.words[0], *command.words[1:]],
        cwd=home, env=_environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while process.poll() is None:
            if first is None and hidden(home):
                first = time.monotonic()
            time.sleep(0.001)
    end = time.monotonic()
    return end - start, end - (first or end)


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vivit-kills-") as folder:
        home = Path(os.path.realpath(folder))
        prepare(home)
        yield home


@click.command()
@click.option("--kills", default=50, show_default=True, help="How many, over all commands.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(COMMANDS)), help="These commands alone. Repeatable.")
@click.option(
    "--results", "folder", type=click.Path(path_type=Path), default=RESULTS / "reliability", help="Folder to write to."
)
def main(kills: int, seed: int, only: tuple[str, ...], folder: Path) -> None:
    """Kill commands, and write what became of it."""
    chance, names = random.Random(seed), list(only or COMMANDS)
    outcomes = {name: Outcome() for name in names}
    with _home() as home:
        spans = {name: measure(home, name) for name in names}
        for name in names:
            outcomes[name].seconds = round(spans[name][0], 1)
        while sum(outcome.kills for outcome in outcomes.values()) < kills:
            name = min(names, key=lambda name: outcomes[name].kills)
            strike(home, name, outcomes[name], chance, spans[name])
            click.echo(f"{name}: {outcomes[name]}")
    content = {"environment": environment(), "seed": seed, "commands": {n: asdict(o) for n, o in outcomes.items()}}
    print(write_results("kills", content, folder))
    sys.exit(any(outcome.faults for outcome in outcomes.values()))


if __name__ == "__main__":
    main()

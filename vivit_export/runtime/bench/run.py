"""Time contenders in one run.

Each contender is a process of its own (`worker`), so its peak memory is its own. They take turns, one
call each, round after round. Other load on the machine then affects all of them alike: compare ratios
within a round, with their spread. A contender beyond its drift gate is not timed: a wrong answer has
no speed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vivit_export.arguments import whole, wholes
from vivit_export.bundle import Bundle
from vivit_export.bundle.bench import Machine
from vivit_export.errors import (
    BuildError,
    ClipError,
    EnvironmentFault,
    InputError,
    UsageError,
    VivitExportError,
    option,
)
from vivit_export.progress import Progress, default_progress
from vivit_export.records import JsonObject
from vivit_export.runtime.bench import worker
from vivit_export.runtime.bench.nvidia_smi import gpu_clocks
from vivit_export.runtime.bench.report import BenchReport, ContenderTimes
from vivit_export.runtime.select import ORDER
from vivit_export.runtime.session.triton.address import is_address

_KINDS: dict[int, type[VivitExportError]] = {
    kind.exit_code: kind for kind in (UsageError, InputError, BuildError, EnvironmentFault)
}
_PAUSE_SECONDS = 0.05  # lets the idle threads of the one before stop spinning


def take_turns(
    commands: Mapping[str, Sequence[str]],
    *,
    batches: int | Sequence[int] = (1,),
    rounds: int = 10,
    warmup: int = 2,
    video: Path | None = None,
    anyway: bool = False,
    required: Collection[str] = (),
    progress: Progress | None = None,
) -> BenchReport:
    """Time contenders, each given by the command that starts its process.

    Args:
        commands: arguments for a Python process that answers as `worker` does, by the contender's name; speeds are
            relative to the first.
        batches: clips per call; an engine that takes fewer is called several times, as a session does.
        rounds: timed calls for each contender and batch.
        warmup: calls before the timed ones.
        video: for timing the steps from file to result; None leaves them out.
        anyway: also time contenders that are beyond the drift gate or cannot be checked.
        required: contenders that must run; the others are left out with a reason.
        progress: receives each stage.

    Returns:
        The report; ``partial`` if Ctrl-C ended the run or a contender stopped.

    Raises:
        UsageError: a number is out of range.
        EnvironmentFault: no contender can run on this machine.
        VivitExportError: a required one cannot run; of the kind of its reason.
    """
    progress = progress if progress is not None else default_progress()
    rounds, warmup, batches = whole("rounds", rounds), whole("warmup", warmup), wholes("batches", batches)
    if rounds < 1 or warmup < 0 or not batches or min(batches) < 1:
        raise UsageError(
            f"{option('rounds', rounds)} and {option('batches')} must be at least 1, and {option('warmup', warmup)} "
            "not below 0"
        )
    machine = this_machine()
    contenders = [ContenderTimes(name) for name in commands]
    interrupted = False
    with contextlib.ExitStack() as stack:
        try:
            with progress.stage("start the contenders and check their drift"):
                workers = {c.name: _start(commands[c.name], stack) for c in contenders}
                for contender in contenders:
                    _admit(contender, workers[contender.name], anyway)
                _require(contenders, required)
            _run_rounds(contenders, workers, batches, rounds, warmup, progress)
            _time_steps(contenders, workers, video, min(rounds, 5), progress)
        except KeyboardInterrupt:
            interrupted = True
            if not any(c.seconds for c in contenders):
                raise
    report = BenchReport(tuple(contenders), rounds, interrupted, machine)
    if report.baseline is None:
        raise EnvironmentFault(_nothing(contenders))
    return report


def served_commands(
    bundle: Bundle, engines: Sequence[str] = (), device: str | None = None, cpu_precision: str | None = None
) -> dict[str, Sequence[str]]:
    """Return the command that starts each engine's process, by engine name, for `take_turns`.

    Args:
        bundle: a verified bundle.
        engines: names that `open_session` knows; empty: every engine that runs on this machine.
        device: see `open_session`.
        cpu_precision: see `open_session`.

    Raises:
        UsageError: an engine is unknown.
    """
    known = {*ORDER, "onnxruntime", *bundle.engines}
    for engine in engines:
        if engine not in known and not is_address(engine):
            raise UsageError(f"engine {engine!r} is unknown; use one of {', '.join(sorted(known))}, or an address")
    options = [str(device or ""), str(cpu_precision or "")]
    return {engine: ["-m", worker.__name__, str(bundle.path), engine, *options] for engine in engines or ORDER}


class _Worker:
    """A contender's process, which takes requests as lines of JSON."""

    def __init__(self, command: Sequence[str]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, start_new_session=True,
        )  # fmt: skip

    def ask(self, **request: Any) -> JsonObject:
        """Send a request and wait for the answer; if the process is gone, the answer has an ``error``."""
        assert self._child.stdin is not None and self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
        line = self._child.stdout.readline()
        if line:
            return dict(json.loads(line))
        status = self._child.wait()
        if status == -signal.SIGKILL:
            return {"error": "its process was killed, as when memory runs out; try a smaller batch"}
        return {"error": f"its process ended with status {status}"}

    def close(self) -> None:
        """End the process, whatever it is doing; closing twice does nothing."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _start(command: Sequence[str], stack: contextlib.ExitStack) -> _Worker:
    worker = _Worker(command)
    stack.callback(worker.close)
    return worker


def _admit(contender: ContenderTimes, worker: _Worker, anyway: bool) -> None:
    """Check that a contender runs and passes its gate."""
    answer = worker.ask(check=True)
    contender.engine = answer.get("engine", "")
    contender.error = answer.get("error", "")
    if contender.error:
        contender.fault_code = answer.get("fault_code", EnvironmentFault.exit_code)  # none if its process died
    failures = answer.get("failures", [])
    if not contender.error and not anyway:
        if failures is None:
            contender.error = "it has no golden clips to check against; export with the check, or pass anyway"
        elif failures:
            contender.error = f"it is beyond its drift gate ({'; '.join(failures)}); find out why, or pass anyway"
    contender.beyond_gate = tuple(failures or ())
    if contender.error:
        worker.close()  # the others may need its memory


def _require(contenders: Sequence[ContenderTimes], required: Collection[str]) -> None:
    """Refuse to time anything without a contender that must run."""
    missing = next((c for c in contenders if c.name in required and c.fault_code), None)
    if missing is None:
        return
    kind = _KINDS.get(missing.fault_code, EnvironmentFault)
    if all(c.error for c in contenders):
        raise kind(_nothing(contenders))
    raise kind(f"{missing.name} cannot be timed: {missing.error}")


def _nothing(contenders: Sequence[ContenderTimes]) -> str:
    return f"nothing could be timed here: {'; '.join(f'{c.name}: {c.error}' for c in contenders)}"


def _run_rounds(
    contenders: Sequence[ContenderTimes],
    workers: dict[str, _Worker],
    batches: Sequence[int],
    rounds: int,
    warmup: int,
    progress: Progress,
) -> None:
    running = [c for c in contenders if not c.error]
    total = len(running) * len(batches) * (warmup + rounds)
    with progress.counting("take turns", total, "runs") as advance:
        for batch in batches:
            for number in range(-warmup, rounds):
                for contender in running:
                    if not contender.error:
                        _turn(contender, workers[contender.name], batch, number)
                    advance(1)


def _turn(contender: ContenderTimes, worker: _Worker, batch: int, number: int) -> None:
    answer = worker.ask(run=[batch, number + 1000])
    for size in ("peak_bytes", "gpu_bytes", "gpu_tensor_bytes"):
        setattr(contender, size, answer.get(size, getattr(contender, size)))
    if "error" in answer:
        contender.error = f"at batch {batch}: {answer['error']}"
        worker.close()
    elif number >= 0:
        for times in ("seconds", "cpu_seconds", "compute_seconds"):
            if times in answer:
                getattr(contender, times).setdefault(batch, []).append(answer[times])
    time.sleep(_PAUSE_SECONDS)


def _time_steps(
    contenders: Sequence[ContenderTimes],
    workers: dict[str, _Worker],
    video: Path | None,
    rounds: int,
    progress: Progress,
) -> None:
    running = [c for c in contenders if c.seconds and not c.error]
    for contender in running:
        contender.gpu = gpu_clocks()
    if video is None:
        return
    with progress.stage("time the steps from a video to its result"):
        times: dict[str, list[dict[str, float]]] = {c.name: [] for c in running}
        for _ in range(rounds + 1):  # the first one warms up
            for contender in running:
                answer = workers[contender.name].ask(split=str(video))
                if "error" in answer:
                    raise ClipError(answer["error"])
                times[contender.name].append(answer["steps"])
        for contender in running:
            rows = times[contender.name][1:]
            contender.steps = {step: float(np.median([row[step] for row in rows])) for step in rows[0]}


def this_machine() -> Machine:
    """Return the facts about the machine that measures."""
    names = (line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name"))
    return Machine(
        cpu=next(names, platform.processor()),
        cores=os.cpu_count(),
        load_before=round(os.getloadavg()[0], 2),
        platform=platform.platform(),
        python=platform.python_version(),
    )


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

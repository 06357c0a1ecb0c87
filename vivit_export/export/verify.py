"""Prove a compiled engine on the device at hand: it runs the golden clips, and its results must pass the gate.

Types and fusion are proven on the plan; a compiler that fuses as promised and computes wrongly is only seen here.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from vivit_export.bundle import GOLDEN, write_manifest
from vivit_export.bundle.checks import Run
from vivit_export.bundle.engines import Verification
from vivit_export.bundle.manifest import Content
from vivit_export.errors import BuildError, EnvironmentFault, InputError, VivitExportError, option
from vivit_export.export.failed import FailedCheckError
from vivit_export.progress import Progress
from vivit_export.records import JsonObject, from_json
from vivit_export.report.html import golden_pictures

_WORKER = "vivit_export.export.engine.golden_worker"
_KINDS = {kind.exit_code: kind for kind in (InputError, BuildError, EnvironmentFault)}
_LATER = "its results are compared where it is first opened"


def verify_engine(folder: Path, content: Content, name: str, progress: Progress) -> Content:
    """Run a new engine on the golden clips if it can run here, at the smallest, the tuned and the largest batch.

    Args:
        folder: bundle under construction; its manifest is written for the process that runs the engine.
        content: what the bundle says about itself, with the engine.
        name: of the engine.
        progress: receives the stage, or why the engine did not run.

    Returns:
        The content, in which the engine's record has this device under ``verified_on``, if it ran.

    Raises:
        FailedCheckError: its results are beyond the gate.
        BuildError: it crashed.
        EnvironmentFault: it fits this machine but does not run, as without enough GPU memory.
    """
    if content.checks is None or not (folder / GOLDEN).is_file():
        progress.note(f"{name} was not run: the bundle has no golden clips, as it was exported without a check")
        return content
    if not _has_driver():
        progress.detail(f"{name} was not run: there is no NVIDIA driver here; {_LATER}")
        return content
    write_manifest(folder, content)
    with progress.stage(f"run the golden clips on {name}"):
        answer = _ask(folder, name)
    if "left_out" in answer:
        progress.note(f"{name} was not run: {answer['left_out']}; {_LATER}")
        return content
    verified = from_json(Verification, answer["verification"], "verification")
    _require(folder, content, verified, name)
    record = replace(content.engines[name], verified_on=(verified,))
    return replace(content, engines={**content.engines, name: record})


def _require(folder: Path, content: Content, verified: Verification, name: str) -> None:
    checks = content.checks
    assert checks is not None
    for figures in verified.batches:
        beyond = checks.gate.violations(figures.drift)
        if beyond:
            runs = tuple(Run(f"{name} on {verified.device}", one.batch, True, one.drift) for one in verified.batches)
            raise FailedCheckError(
                replace(content, checks=replace(checks, runs=(*checks.runs, *runs))),
                golden_pictures(folder, content),
                f"; no engine was added: build with another version of {content.engines[name].flavour.product}, "
                "update the driver, or export in a wider type",
                failure=f"{name} computes wrongly on {verified.device} (driver {verified.driver}) at batch "
                f"{figures.batch}: {'; '.join(beyond)}",
            )


def _has_driver() -> bool:
    """Whether a GPU may be there; nothing is started in this process, which may fork."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _ask(folder: Path, name: str) -> JsonObject:
    # Not in the bundle's folder, which Python would search for modules. A terminal's Ctrl-C reaches only this process,
    # which then kills the child.
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-m", _WORKER, os.path.abspath(folder), name], cwd=empty, start_new_session=True,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    lines = done.stdout.splitlines()
    if not lines:
        raise BuildError(f"{name} {_end_of(done)} while it ran the golden clips; {_advice(done)}")
    answer: JsonObject = json.loads(lines[-1])
    if "error" in answer:
        kind: type[VivitExportError] = _KINDS.get(answer["fault_code"], BuildError)
        raise kind(f"{name} was built but does not run here: {answer['error']}")
    return answer


def _end_of(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"crashed with {signal.Signals(-done.returncode).name}"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"failed ({said[-1] if said else f'status {done.returncode}'})"


def _advice(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -signal.SIGKILL:
        return f"memory may have run out: lower {option('batches.max')}"
    return "update the driver, or build with another version of TensorRT"

"""The child process of `bench`: one contender, so that its memory and its threads are its own.

``python -m vivit_export.runtime.bench_worker BUNDLE ENGINE`` answers requests, lines of JSON: ``{"check": true}``,
``{"run": [B, seed]}``, ``{"split": VIDEO}``. Every answer has the peak of its memory. What libraries print goes to
stderr. `vivit_export.export.bench_worker` does the same for the eager network.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import read_bundle
from vivit_export.contract import Contract
from vivit_export.errors import VivitExportError
from vivit_export.runtime.check import check_session, golden_clips
from vivit_export.runtime.drift import parse_gate
from vivit_export.runtime.sampling import choose_sampling
from vivit_export.runtime.session.select import CpuPrecision, open_session
from vivit_export.runtime.video import read_clip

Batch = npt.NDArray[Any]


class Contender(Protocol):
    """What a worker times.

    Attributes:
        engine: name, version, device and arithmetic, for people.
    """

    engine: str

    def batch(self, count: int, seed: int) -> Any:
        """Make the input of one call in host memory; not timed."""

    def run(self, batch: Any) -> object:
        """Run it, until the result is in host memory."""

    def split(self, video: Path) -> dict[str, float]:
        """Return the seconds of each step from a video file to its result, for one clip."""

    def failures(self) -> list[str] | None:
        """Say what is beyond the drift gate; None where there is nothing to hold it to."""


class Served:
    """A bundle in a session."""

    def __init__(self, folder: str, engine: str, device: str, cpu_precision: str) -> None:
        self._bundle = read_bundle(folder)
        precision = cast("CpuPrecision | None", cpu_precision or None)
        self._session = open_session(self._bundle, engine or None, device or None, precision)
        self.engine = f"{self._session.details}, calls of up to {self._session.batches[1]}"
        self.run = self._session.run

    def batch(self, count: int, seed: int) -> Batch:
        """Noise: what the pixels show does not change how long a transformer takes."""
        return random_batch(self._bundle.contract, count, seed)

    def split(self, video: Path) -> dict[str, float]:
        """Time decoding, preprocessing and the engine's own steps."""
        frames, decode = timed_decoding(self._bundle.contract, video)
        start = time.perf_counter()
        clip = self._session.prepare(frames)
        preprocess = time.perf_counter() - start
        return {"decode": decode, "preprocess": preprocess, **self._session.run_in_steps(clip[None])}

    def failures(self) -> list[str] | None:
        """Hold the golden clips to the bundle's gate, at the smallest batch."""
        if self._bundle.golden is None:
            return None
        frames, reference = golden_clips(self._bundle)
        gate = parse_gate(None, self._bundle.precision, self._bundle.manifest["checks"].get("gate"))
        run = check_session(self._session, frames, reference, gate)[0]
        return gate.violations(run.drift) if run.drift else []


def random_batch(contract: Contract, count: int, seed: int) -> Batch:
    """Noise for the graph's input, uint8 or standard normal float32."""
    source = contract.io.inputs[0]
    shape = (count, *(int(d) for d in source.shape[1:]))
    rng = np.random.default_rng(seed)
    if source.dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape, dtype=np.float32)


def work(make: Callable[[], Contender]) -> int:
    """Make a contender and answer requests until stdin ends; a failure to make it is the only answer.

    Returns:
        The exit status.
    """
    # What libraries print goes to stderr from here on; stdout is for answers alone.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        try:
            contender = make()
        except VivitExportError as e:
            answers.write(json.dumps({"error": str(e)}) + "\n")
            return e.exit_code
        for line in sys.stdin:
            answer = {**_answer(contender, json.loads(line)), "peak_bytes": _peak_bytes()}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    return 0


def _answer(contender: Contender, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if "check" in request:
            return {"engine": contender.engine, "failures": contender.failures()}
        if "run" in request:
            batch = contender.batch(*request["run"])
            start, busy = time.perf_counter(), time.process_time()
            contender.run(batch)
            return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}
        return {"steps": contender.split(Path(request["split"]))}
    except (VivitExportError, MemoryError) as e:
        return {"error": str(e) or "memory ran out"}


def timed_decoding(contract: Contract, video: Path) -> tuple[npt.NDArray[np.uint8], float]:
    """Return one clip as it comes from a video, a short one looped, and the seconds that took."""
    clip = choose_sampling(contract.clip, short="loop")
    start = time.perf_counter()
    frames = read_clip(video, dataclasses.replace(contract, clip=clip))
    return frames, time.perf_counter() - start


def _peak_bytes() -> int:
    """Peak resident memory of this process (Linux, /proc/self/status)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(work(lambda: Served(*sys.argv[1:])))

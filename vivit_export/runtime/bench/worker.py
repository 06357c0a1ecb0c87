"""The child process of `bench`: one contender, with memory and threads of its own.

``python -m vivit_export.runtime.bench.worker BUNDLE ENGINE`` answers requests, lines of JSON: ``{"check": true}``,
``{"run": [B, seed]}``, ``{"split": VIDEO}``. Every answer has the peak memory. Whatever libraries print goes to
stderr. `vivit_export.export.eager_worker` does the same for the eager network.

On a GPU, each timed call follows an untimed one, because caches and clocks cooled while others ran. The network is then
timed once more with its input already on the GPU.
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
from vivit_export.choices import CpuPrecision
from vivit_export.contract import Contract
from vivit_export.errors import EnvironmentFault, VivitExportError
from vivit_export.packages import import_fault
from vivit_export.records import JsonObject
from vivit_export.runtime.bench.nvidia_smi import gpu_used_bytes
from vivit_export.runtime.clips.sampling import choose_sampling
from vivit_export.runtime.drift.check import check_session, gate_of, golden_clips
from vivit_export.runtime.select import CPU_ENGINES, ORDER, open_session
from vivit_export.runtime.session.session import Session
from vivit_export.signals import die_with_parent

Batch = npt.NDArray[Any]


class OnGpu(Protocol):
    """What a contender on a GPU measures in addition."""

    def compute(self, batch: Any) -> float:
        """Run a batch and return the seconds without copies to and from the GPU."""

    def tensor_bytes(self) -> int:
        """Return the peak GPU memory of its tensors, or 0 if it does not count them."""

    def rest(self) -> None:
        """Free GPU memory that it keeps only for its next call, because others run in between."""


class Contender(Protocol):
    """What a worker times.

    Attributes:
        engine: name, version, device and arithmetic, for people.
    """

    engine: str

    @property
    def gpu(self) -> OnGpu | None:
        """What it measures on a GPU; None on the CPU."""

    def batch(self, count: int, seed: int) -> Any:
        """Make the input of one call in host memory; this is not timed."""

    def run(self, batch: Any) -> object:
        """Run it, until the result is in host memory."""

    def split(self, video: Path) -> dict[str, float]:
        """Return the seconds of each step from a video file to its result, for one clip."""

    def failures(self) -> list[str] | None:
        """Return what is beyond the drift gate, or None if there is nothing to check against."""


class Served:
    """A bundle in a session."""

    def __init__(self, folder: str, engine: str, device: str, cpu_precision: str = "") -> None:
        self._bundle = read_bundle(folder)
        precision = cast("CpuPrecision | None", cpu_precision or None)
        try:
            # `failures` runs all golden clips.
            self._session = open_session(self._bundle, engine or None, device or None, precision, self_test=False)
        except EnvironmentFault as e:
            # The reason alone: the contender's name stands before it, and it may be one that nobody asked for.
            raise (e.__cause__ if engine in ORDER and e.__cause__ else e) from None
        self.engine = f"{self._session.details}, calls of up to {self._session.batches[1]}"
        self.run = self._session.run
        local = self._session.engine in ORDER and self._session.engine not in CPU_ENGINES
        self.gpu = ServedOnGpu(self._session) if local else None

    def batch(self, count: int, seed: int) -> Batch:
        """Return noise: what the pixels show does not change how long a transformer takes."""
        return random_batch(self._bundle.contract, count, seed)

    def split(self, video: Path) -> dict[str, float]:
        """Time decoding, preprocessing and the engine's own steps."""
        frames, decode = timed_decoding(self._bundle.contract, video)
        start = time.perf_counter()
        clip = self._session.prepare(frames)
        preprocess = time.perf_counter() - start
        return {"decode": decode, "preprocess": preprocess, **self._session.run_in_steps(clip[None])}

    def failures(self) -> list[str] | None:
        """Check the golden clips against the bundle's gate, at the smallest batch."""
        if self._bundle.golden is None:
            return None
        frames, reference = golden_clips(self._bundle)
        gate = gate_of(self._bundle)
        run = check_session(self._session, frames, reference, gate)[0]
        return gate.violations(run.drift) if run.drift else []


class ServedOnGpu:
    """A session on a GPU of this machine; see `OnGpu`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def compute(self, batch: Batch) -> float:
        """Return the sum over calls of as many clips as the engine takes."""
        low, high = self._session.batches
        parts = [batch[i : i + high] for i in range(0, len(batch), high)]
        filled = (part[np.arange(max(low, len(part))) % len(part)] for part in parts)
        return sum(self._session.run_in_steps(part)["compute"] for part in filled)

    def tensor_bytes(self) -> int:
        """Return 0: engines do not count their tensors."""
        return 0

    def rest(self) -> None:
        """Do nothing: engines keep only what they need."""


def random_batch(contract: Contract, count: int, seed: int) -> Batch:
    """Noise for the graph's input, uint8 or standard normal float32."""
    source = contract.io.inputs[0]
    shape = (count, *(int(d) for d in source.shape[1:]))
    rng = np.random.default_rng(seed)
    if source.dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape, dtype=np.float32)


def work(make: Callable[[], Contender]) -> int:
    """Make a contender at the first request, and answer until stdin ends; if making it fails, answer only that.

    Contenders are asked one after the other, so any growth of GPU memory in the meantime is this one's.

    Returns:
        The exit status.
    """
    die_with_parent()
    # From here on, whatever libraries print goes to stderr: stdout is for answers only.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        handler: RequestHandler | None = None
        for line in sys.stdin:
            try:
                handler = handler or RequestHandler(make)
            except Exception as e:  # whatever the engine's own libraries raise
                code = _exit_code(e)
                answers.write(json.dumps({"error": _reason(e), "fault_code": code}) + "\n")
                return code
            answers.write(json.dumps({**handler.answer(json.loads(line)), "peak_bytes": _peak_bytes()}) + "\n")
            answers.flush()
    return 0


class RequestHandler:
    """Answers for a contender."""

    def __init__(self, make: Callable[[], Contender]) -> None:
        self._memory = _GpuMemory()
        self._contender = make()
        self._memory.end()
        self._batches: set[int] = set()

    def answer(self, request: JsonObject) -> JsonObject:
        """Carry out a request, or return why that failed."""
        try:
            if "check" in request:
                return self._check()
            if "run" in request:
                count, seed = request["run"]
                return self._run(count, self._contender.batch(count, seed))
            return {"steps": self._contender.split(Path(request["split"]))}
        except Exception as e:  # out of memory, or whatever the engine's own libraries raise
            return {"error": _reason(e)}

    def _check(self) -> JsonObject:
        self._memory.begin()
        answer = {"engine": self._contender.engine, "failures": self._contender.failures()}
        self._memory.end()
        return answer

    def _run(self, count: int, batch: Any) -> JsonObject:
        gpu = self._contender.gpu
        if gpu is None:
            return self._timed(batch)
        first = count not in self._batches  # memory is sized then
        self._batches.add(count)
        if first:
            self._memory.begin()
        self._contender.run(batch)
        answer = {**self._timed(batch), "compute_seconds": gpu.compute(batch)}
        if first:
            self._memory.look()
        gpu.rest()
        if first:
            self._memory.end()
        return {**answer, "gpu_bytes": self._memory.peak, "gpu_tensor_bytes": gpu.tensor_bytes()}

    def _timed(self, batch: Any) -> JsonObject:
        start, busy = time.perf_counter(), time.process_time()
        self._contender.run(batch)
        return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}


class _GpuMemory:
    """A contender's GPU memory: how much the used memory grows while no other contender runs.

    Attributes:
        peak: bytes; 0 where ``nvidia-smi`` does not tell.
    """

    def __init__(self) -> None:
        self._held = self.peak = 0
        self.begin()

    def begin(self) -> None:
        """Its turn begins."""
        self._start = gpu_used_bytes()

    def look(self) -> None:
        """Record the memory at its largest."""
        self.peak = max(self.peak, self._held + self._grown())

    def end(self) -> None:
        """End a turn; what the contender holds now, it keeps."""
        self._held += self._grown()

    def _grown(self) -> int:
        now = gpu_used_bytes()
        return 0 if self._start is None or now is None else now - self._start


def _known(error: Exception) -> VivitExportError | None:
    """An error of this package, or what it says of one that an import ended in; None: neither."""
    return error if isinstance(error, VivitExportError) else import_fault(error)


def _exit_code(error: Exception) -> int:
    """The exit code that the command line has for an error."""
    known = _known(error)
    return VivitExportError.exit_code if known is None else known.exit_code


def _reason(error: Exception) -> str:
    """One line for people; other libraries' own errors with their kind."""
    lines = str(error).strip().splitlines()
    known = _known(error)
    if known is not None:
        return str(known)
    if isinstance(error, MemoryError):
        return "memory ran out; try a smaller batch"
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def timed_decoding(contract: Contract, video: Path) -> tuple[npt.NDArray[np.uint8], float]:
    """Return one clip as it comes from a video, a short one looped, and the seconds that took."""
    from vivit_export.runtime.clips.clip import read_clip  # here, so that the network can be timed without a decoder

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

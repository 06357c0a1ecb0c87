"""The result of timing a bundle: contenders, their calls, and the figures computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vivit_export.bundle.bench import BenchRecord, ContenderRecord, Figures, Machine
from vivit_export.errors import UsageError, counted, option
from vivit_export.precision import Precision
from vivit_export.printing import html_table
from vivit_export.records import JsonObject, to_json

EXCLUDED = "loading, warm-up, video decoding and preprocessing (those are under steps)"
_MODES = ("eager", "sdpa", "compile")
_PRECISIONS = tuple(p for p in Precision if not p.quantized)  # PyTorch has them all
PYTORCH_KINDS = tuple(mode + ("" if p is Precision.FP32 else f"-{p}") for mode in _MODES for p in _PRECISIONS)
"""What `parse_kind` takes, as people write it."""
_PERCENTILES = (50, 90, 95, 99)


@dataclass
class ContenderTimes:
    """One engine, or PyTorch mode, that is timed.

    Attributes:
        name: as the caller wrote it.
        engine: name, version, device and arithmetic.
        seconds: of each timed call, by batch.
        cpu_seconds: processor time of the same calls.
        compute_seconds: on a GPU: of the same number of calls whose input is already there.
        steps: seconds from a video file to its result, one clip, medians.
        peak_bytes: largest resident memory of its process.
        gpu_bytes: largest growth of used GPU memory during its turns, loading included.
        gpu_tensor_bytes: for PyTorch: peak GPU memory of its tensors.
        gpu: clocks that ``nvidia-smi`` reported after its last call.
        beyond_gate: limits of its drift gate that it exceeds, if it was timed anyway.
        error: why it was left out or stopped.
        fault_code: if it could not be opened: the exit code of the reason; else 0.
    """

    name: str
    engine: str = ""
    seconds: dict[int, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[int, list[float]] = field(default_factory=dict)
    compute_seconds: dict[int, list[float]] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    gpu_bytes: int = 0
    gpu_tensor_bytes: int = 0
    gpu: str = ""
    beyond_gate: tuple[str, ...] = ()
    error: str = ""
    fault_code: int = 0


@dataclass(frozen=True, repr=False)
class BenchReport:
    """What was measured.

    Attributes:
        contenders: in the order of their turns; ratios are relative to the first that ran.
        rounds: requested timed calls per batch.
        interrupted: whether Ctrl-C ended the run.
        machine: processor, cores, load before.
    """

    contenders: tuple[ContenderTimes, ...]
    rounds: int
    interrupted: bool
    machine: Machine

    def __repr__(self) -> str:
        times = (f"{row[0]} {row[2]} ms" for row in self._rows() if row[1] == self._first_batch())
        state = ", partial" if self.partial else ""
        return f"<BenchReport: batch {self._first_batch()}: {', '.join(times)}{state}>"

    def _repr_html_(self) -> str:
        head = ("contender", "batch", "ms (median)", "clips/s", "x the first")
        state = ", partial" if self.partial else ""
        return html_table(head, self._rows(), f"{self.machine.cpu}, {counted(self.rounds, 'rounds')}{state}")

    def _first_batch(self) -> str:
        return next((row[1] for row in self._rows()), "1")

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for contender in self.contenders:
            for batch in contender.seconds:
                found = self.figures(contender, batch)
                speed = "" if found.speed is None else f"{found.speed:.2f}"
                rows.append((contender.name, str(batch), f"{found.p50_ms:.3g}", f"{found.clips_per_second:.3g}", speed))
        return rows

    @property
    def partial(self) -> bool:
        """Whether less was measured than requested: the run was interrupted, or a contender stopped."""
        return self.interrupted or any(c.seconds and c.error for c in self.contenders)

    @property
    def baseline(self) -> ContenderTimes | None:
        """The contender that speeds are relative to."""
        return next((c for c in self.contenders if c.seconds), None)

    def figures(self, contender: ContenderTimes, batch: int) -> Figures:
        """Return the figures of a contender's calls at one batch; see `Figures`."""
        seconds = np.array(contender.seconds[batch])
        p50, p90, p95, p99 = (1e3 * float(np.percentile(seconds, p)) for p in _PERCENTILES)
        base = self.baseline.seconds.get(batch, []) if self.baseline else []
        ratios = [b / s for b, s in zip(base, seconds, strict=False)]
        low, middle, high = (float(np.percentile(ratios, p)) if ratios else None for p in (10, 50, 90))
        compute = contender.compute_seconds.get(batch, [])
        theirs = self.baseline.compute_seconds.get(batch, []) if self.baseline else []
        return Figures(
            rounds=len(seconds),
            p50_ms=p50,
            p90_ms=p90,
            p95_ms=p95,
            p99_ms=p99,
            clips_per_second=batch / float(np.median(seconds)),
            cpu_seconds=float(np.median(contender.cpu_seconds[batch])),
            speed=middle,
            speed_low=low,
            speed_high=high,
            compute_ms=1e3 * float(np.median(compute)) if compute else None,
            compute_speed=_median([b / s for b, s in zip(theirs, compute, strict=False)]),
        )

    def record(self) -> BenchRecord:
        """Return the record for the bundle and ``--json``."""
        return BenchRecord(
            machine=self.machine,
            rounds=self.rounds,
            partial=self.partial,
            excluded=EXCLUDED,
            baseline=self.baseline.name if self.baseline else None,
            contenders={c.name: self._contender(c) for c in self.contenders},
        )

    def to_json(self) -> JsonObject:
        """Return JSON types, without what does not apply to a contender."""
        data: JsonObject = to_json(self.record())
        return {**data, "contenders": {name: _that_applies(c) for name, c in data["contenders"].items()}}

    def _contender(self, c: ContenderTimes) -> ContenderRecord:
        return ContenderRecord(
            engine=c.engine,
            batches={str(batch): self.figures(c, batch) for batch in c.seconds},
            peak_bytes=c.peak_bytes,
            steps_seconds=c.steps,
            gpu=c.gpu,
            gpu_bytes=c.gpu_bytes,
            gpu_tensor_bytes=c.gpu_tensor_bytes,
            beyond_gate=c.beyond_gate,
            error=c.error,
        )


def parse_kind(kind: str) -> tuple[str, Precision, bool]:
    """Parse a PyTorch mode: ``eager``, ``sdpa`` or ``compile``, optionally followed by ``-fp16`` or ``-bf16``.

    Returns:
        Attention implementation, precision, and whether to compile.

    Raises:
        UsageError: it is none of these.
    """
    name, _, wanted = kind.partition("-")
    precision = wanted or Precision.FP32
    if name not in _MODES or precision not in _PRECISIONS:
        raise UsageError(
            f"{option('against', repr(kind))} is not eager, sdpa or compile, optionally followed by -fp16 or -bf16"
        )
    return "eager" if name == "eager" else "sdpa", Precision(precision), name == "compile"


def _that_applies(contender: JsonObject) -> JsonObject:
    batches = {
        batch: {name: figure for name, figure in figures.items() if figure is not None}
        for batch, figures in contender["batches"].items()
    }
    return {**{name: fact for name, fact in contender.items() if fact}, "batches": batches}


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None

"""What timing a bundle gave: contenders, their calls, and the figures made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vivit_export.errors import UsageError, option

EXCLUDED = "loading, warm-up, video decoding and preprocessing (those are under steps)"
PRECISIONS = ("fp32", "fp16", "bf16")
_PERCENTILES = (50, 90, 95, 99)


@dataclass
class Contender:
    """One that takes part.

    Attributes:
        name: as asked for.
        engine: name, version, device and arithmetic.
        seconds: of each timed call, by batch.
        cpu_seconds: processor time of the same calls.
        compute_seconds: on a GPU, of as many calls with their input there already.
        steps: seconds from a video file to its result, one clip, medians.
        peak_bytes: largest resident memory of its process.
        gpu_bytes: what the GPU's used memory grew by in its turns, from loading on, at most.
        gpu_tensor_bytes: most GPU memory that PyTorch's tensors took at once, for PyTorch.
        gpu: what ``nvidia-smi`` said of the clocks after its last call.
        beyond_gate: limits of its drift gate that it breaks and is timed all the same.
        error: why it is out, or was stopped.
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


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes:
        contenders: in the order they took their turns; the first that ran is what ratios are to.
        rounds: timed calls per batch that were asked for.
        interrupted: Ctrl-C came in between.
        machine: processor, cores, load before.
    """

    contenders: tuple[Contender, ...]
    rounds: int
    interrupted: bool
    machine: dict[str, Any]

    @property
    def partial(self) -> bool:
        """Whether less was measured than was asked for: interrupted, or a contender stopped on its way."""
        return self.interrupted or any(c.seconds and c.error for c in self.contenders)

    @property
    def baseline(self) -> Contender | None:
        """What speeds are relative to."""
        return next((c for c in self.contenders if c.seconds), None)

    def figures(self, contender: Contender, batch: int) -> dict[str, float]:
        """Latency in milliseconds by percentile, clips per second, and speed relative to the baseline.

        ``speed`` is the median over rounds of the baseline's time by this one's; ``speed_low`` and
        ``speed_high`` are the 10th and 90th percentile of those ratios. On a GPU ``compute_ms`` is the median
        without copies to and from it, and ``compute_speed`` the baseline's by this one's.
        """
        seconds = np.array(contender.seconds[batch])
        found = {f"p{p}_ms": 1e3 * float(np.percentile(seconds, p)) for p in _PERCENTILES}
        found["clips_per_second"] = batch / float(np.median(seconds))
        found["cpu_seconds"] = float(np.median(contender.cpu_seconds[batch]))
        base = self.baseline.seconds.get(batch, []) if self.baseline else []
        ratios = [b / s for b, s in zip(base, seconds, strict=False)]
        if ratios:
            low, middle, high = (float(np.percentile(ratios, p)) for p in (10, 50, 90))
            found |= {"speed": middle, "speed_low": low, "speed_high": high}
        if compute := contender.compute_seconds.get(batch):
            found["compute_ms"] = 1e3 * float(np.median(compute))
            theirs = self.baseline.compute_seconds.get(batch, []) if self.baseline else []
            ratios = [b / s for b, s in zip(theirs, compute, strict=False)]
            found |= {"compute_speed": float(np.median(ratios))} if ratios else {}
        return found

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        return {
            "machine": self.machine,
            "rounds": self.rounds,
            "partial": self.partial,
            "excluded": EXCLUDED,
            "baseline": self.baseline.name if self.baseline else None,
            "contenders": {c.name: self._contender_json(c) for c in self.contenders},
        }

    def _contender_json(self, c: Contender) -> dict[str, Any]:
        facts = {
            "engine": c.engine,
            "peak_bytes": c.peak_bytes,
            "steps_seconds": c.steps,
            "gpu": c.gpu,
            "gpu_bytes": c.gpu_bytes,
            "gpu_tensor_bytes": c.gpu_tensor_bytes,
            "beyond_gate": list(c.beyond_gate),
            "error": c.error,
        }
        batches = {str(batch): {**self.figures(c, batch), "rounds": len(c.seconds[batch])} for batch in c.seconds}
        return {**{name: fact for name, fact in facts.items() if fact}, "batches": batches}


def parse_kind(kind: str) -> tuple[str, str, bool]:
    """Read what to compare with: ``eager``, ``sdpa`` or ``compile``, with ``-fp16`` or ``-bf16`` behind it.

    Returns:
        Attention implementation, precision, and whether to compile.

    Raises:
        UsageError: it is none of these.
    """
    name, _, precision = kind.partition("-")
    if name not in ("eager", "sdpa", "compile") or (precision or "fp32") not in PRECISIONS:
        raise UsageError(
            f"{option('against', repr(kind))} is not eager, sdpa or compile, with -fp16 or -bf16 behind it where wanted"
        )
    return "eager" if name == "eager" else "sdpa", precision or "fp32", name == "compile"

"""What ``vivit bench`` measured: the records behind the bundle's section ``bench``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured.

    Attributes:
        cpu: model of the processor.
        cores: how many the system has.
        load_before: average of one minute, before the first contender started.
        platform: operating system.
        python: version.
    """

    cpu: str
    cores: int | None
    load_before: float
    platform: str
    python: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What one contender's calls at one batch came to.

    Attributes:
        rounds: timed calls.
        p50_ms: latency of a call in milliseconds, by percentile.
        p90_ms: see above.
        p95_ms: see above.
        p99_ms: see above.
        clips_per_second: by the median.
        cpu_seconds: processor time of a call, median.
        speed: median over rounds of the baseline's time by this one's; None where that was not timed.
        speed_low: 10th percentile of those ratios.
        speed_high: 90th percentile.
        compute_ms: on a GPU, median without copies to and from it.
        compute_speed: the baseline's by this one's.
    """

    rounds: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    clips_per_second: float
    cpu_seconds: float
    speed: float | None = None
    speed_low: float | None = None
    speed_high: float | None = None
    compute_ms: float | None = None
    compute_speed: float | None = None


@dataclass(frozen=True, slots=True)
class ContenderRecord:
    """One that took part.

    Attributes:
        engine: name, version, device and arithmetic.
        batches: figures by number of clips in a call.
        peak_bytes: largest resident memory of its process.
        steps_seconds: from a video file to its result, one clip, medians.
        gpu: what ``nvidia-smi`` said of the clocks after its last call.
        gpu_bytes: what the GPU's used memory grew by in its turns, from loading on, at most.
        gpu_tensor_bytes: most GPU memory that PyTorch's tensors took at once, for PyTorch.
        beyond_gate: limits of its drift gate that it breaks and is timed all the same.
        error: why it is out, or was stopped.
    """

    engine: str = ""
    batches: Mapping[str, Figures] = field(default_factory=dict)
    peak_bytes: int = 0
    steps_seconds: Mapping[str, float] = field(default_factory=dict)
    gpu: str = ""
    gpu_bytes: int = 0
    gpu_tensor_bytes: int = 0
    beyond_gate: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class BenchRecord:
    """One comparison of contenders that took turns.

    Attributes:
        machine: where it was measured.
        rounds: timed calls per batch that were asked for.
        partial: whether less was measured than was asked for.
        excluded: what was not timed.
        baseline: the contender that speeds are relative to.
        contenders: by name, in the order they took their turns.
    """

    machine: Machine
    rounds: int
    partial: bool
    excluded: str
    baseline: str | None
    contenders: Mapping[str, ContenderRecord]

"""The results of ``vivit bench``: the records of the bundle's section ``bench``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that measured.

    Attributes:
        cpu: model of the processor.
        cores: how many the system has.
        load_before: one-minute load average before the first contender started.
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
    """The figures of one contender at one batch.

    Attributes:
        rounds: timed calls.
        p50_ms: latency of a call in milliseconds, by percentile.
        p90_ms: see above.
        p95_ms: see above.
        p99_ms: see above.
        clips_per_second: at the median latency.
        cpu_seconds: processor time of a call, median.
        speed: median over rounds of the baseline's time divided by this one's; None if the baseline was not timed.
        speed_low: 10th percentile of those ratios.
        speed_high: 90th percentile.
        compute_ms: on a GPU, median without copies to and from it.
        compute_speed: the baseline's ``compute_ms`` divided by this one's.
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
    """One engine, or PyTorch mode, that was timed.

    Attributes:
        engine: name, version, device and arithmetic.
        batches: figures by number of clips in a call.
        peak_bytes: largest resident memory of its process.
        steps_seconds: from a video file to its result, one clip, medians.
        gpu: clocks that ``nvidia-smi`` reported after its last call.
        gpu_bytes: largest growth of used GPU memory during its turns, loading included.
        gpu_tensor_bytes: for PyTorch: peak GPU memory of its tensors.
        beyond_gate: limits of its drift gate that it exceeds, if it was timed anyway.
        error: why it was left out or stopped.
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
        machine: the machine that measured.
        rounds: requested timed calls per batch.
        partial: whether less was measured than requested.
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

"""The results of checks: drift, parity of preprocessed pixels, the gate, and the report."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from vivit_export.bundle.accuracy import Accuracy
from vivit_export.bundle.baseline import Baseline
from vivit_export.bundle.clip_view import ClipView, VideoFacts
from vivit_export.bundle.taps import TapReport
from vivit_export.contract import Task
from vivit_export.errors import DriftError, InputError, counted
from vivit_export.printing import html_table
from vivit_export.records import JsonObject, shown, to_json

_OF_ALL_CLIPS = frozenset({"top1", "top5", "agreement", "rms", "accuracy_drop"})
AT_LEAST = frozenset({"top1", "top5", "agreement", "cosine", "embedding_cosine"})
"""The metrics that a gate limits from below."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Comparison of N clips; what a model or its task does not have is None.

    A decision is the best class of a clip or, for a multi-label task, whether one label of a clip is at least as
    probable as not. A regression decides nothing.

    Attributes:
        num_clips: N.
        top1: share of clips with the same best class; single-label only.
        top5: mean share of the reference's five best classes found among ours; single-label only.
        near_flips: decisions that changed, but for which the reference was close to a tie.
        clear_flips: decisions that changed although the reference was clear.
        max_abs: largest absolute logit difference.
        max: the same, relative to the logit range.
        rms: root mean square logit difference, relative to the logit range.
        kl: largest KL divergence KL(reference || ours) of a clip's labels, in nats: of its softmax, or the sum over
            the labels of a multi-label task, each a distribution of its own.
        cosine: smallest cosine of a clip's logits; None for one logit.
        embedding_cosine: smallest cosine of a clip's embedding, or None without that output.
        nonfinite: number of NaN or infinite values.
        agreement: share of all decisions (N x num_labels) that are the same; multi-label only.
        accuracy_drop: how much less often than the reference the best class is the known label, as a share of the
            clips; negative if more often. None without known labels.
    """

    num_clips: int
    top1: float | None
    top5: float | None
    near_flips: int | None
    clear_flips: int | None
    max_abs: float | None
    max: float | None
    rms: float | None
    kl: float | None
    cosine: float | None
    embedding_cosine: float | None
    nonfinite: int
    agreement: float | None = None
    accuracy_drop: float | None = None

    def __post_init__(self) -> None:
        for name in ("top1", "top5", "agreement"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise InputError(f"drift {name}={share} must be a share from 0 to 1; check the bundle again")


METRICS = frozenset(f.name for f in fields(Drift)) - {"num_clips"}
"""The metrics that a gate can limit."""
OF_LABELS = frozenset({"accuracy_drop"})
"""Those that exist only where the labels of the clips are known."""

_OF_LOGITS = {"max_abs", "max", "rms", "cosine"}
_OF_TASK: dict[Task, set[str]] = {
    "single_label_classification": {"top1", "top5", "near_flips", "clear_flips", "kl"},
    "multi_label_classification": {"agreement", "near_flips", "clear_flips", "kl"},
    "regression": set(),
}


def measured_metrics(outputs: Collection[str], task: Task, num_labels: int) -> frozenset[str]:
    """Return the metrics that a model with these outputs, this task and number of logits has."""
    of_logits = _OF_LOGITS | _OF_TASK[task] if "logits" in outputs else set()
    of_logits -= {"cosine"} if num_labels == 1 else set()
    return frozenset({"nonfinite"} | of_logits | ({"embedding_cosine"} if "embedding" in outputs else set()))


def why_useless(metric: str, limit: float) -> str:
    """Return why a limit on a metric could never be met, or never be exceeded; empty: it can be both.

    An agreement is a share from 0 to 1 or a cosine from -1 to 1, and must reach its limit. A difference is 0 or more,
    and must not exceed its limit.
    """
    lowest = -1 if metric.endswith("cosine") else 0
    within = f"above {lowest}, and at most 1" if metric in AT_LEAST else "0 or more, and finite"
    if _is_never_met(metric, limit):
        return f"no model could pass it; the limit must be {within}"
    never_exceeded = limit <= lowest if metric in AT_LEAST else limit == math.inf
    return f"no model could fail it; the limit must be {within}" if never_exceeded else ""


def _is_never_met(metric: str, limit: float) -> bool:
    return limit > 1 if metric in AT_LEAST else limit < 0


@dataclass(frozen=True, slots=True)
class BlockDrift:
    """How far the residual stream is from the reference after one encoder block.

    Attributes:
        name: name of the block, as in the names of its nodes.
        rms: root mean square difference, relative to the reference's RMS; the largest of the clips. None: not finite.
        max_abs: largest absolute difference; None: not finite.
    """

    name: str
    rms: float | None
    max_abs: float | None


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits on a `Drift`: lower limits for agreement, upper limits for differences.

    Attributes:
        limits: limit by metric.
    """

    JSON_FIELD: ClassVar[str] = "limits"

    limits: Mapping[str, float]

    @property
    def tie_margin(self) -> float:
        """Reference margin, relative to the logit range, below which a flip counts as near."""
        return 2 * self.limits.get("max", 0.0)

    def tightened(self, share: float) -> Gate:
        """Return a gate that allows this share of the differences, and of the missing agreement."""
        limits = {n: 1 - share * (1 - v) if n in AT_LEAST else share * v for n, v in self.limits.items()}
        return Gate(limits)

    def for_one_clip(self) -> Gate:
        """Return the limits that hold for every clip by itself: on extremes and counts, not on shares and averages."""
        return Gate({n: v for n, v in self.limits.items() if n not in _OF_ALL_CLIPS})

    def loosened(self, other: Mapping[str, float]) -> Gate:
        """Return the looser of two limits on each metric that both limit."""
        both = [name for name in self.limits if name in other]
        return Gate({n: (min if n in AT_LEAST else max)(self.limits[n], other[n]) for n in both})

    def violations(self, drift: Drift) -> list[str]:
        """Return a phrase for each limit that ``drift`` exceeds; empty: it passes."""
        found = []
        for name, limit in self.limits.items():
            value = getattr(drift, name)
            if value is None:
                continue
            at_least = name in AT_LEAST
            if not (value >= limit if at_least else value <= limit):
                found.append(f"{name} {value:.6g} is {'below' if at_least else 'above'} {limit:g}")
        return found


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of all clips.

    Attributes:
        engine: what ran.
        batch: clips per call.
        gated: whether the gate applies.
        drift: drift from the reference; None if the run was skipped.
        note: why it was skipped.
    """

    engine: str
    batch: int
    gated: bool
    drift: Drift | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Parity:
    """A comparison of two ways to compute the same pixels.

    Attributes:
        ours: the way that is tested.
        reference: the way that it must equal.
        values: how many numbers were compared.
        differing: how many of them differ in any bit.
        max_abs: largest difference.
        gated: whether a difference is a failure.
        note: why it is not a failure.
    """

    ours: str
    reference: str
    values: int
    differing: int
    max_abs: float
    gated: bool = True
    note: str = ""

    def __add__(self, other: Parity) -> Parity:
        """Merge two comparisons of the same two ways."""
        worst = max(self.max_abs, other.max_abs)
        total, differing = self.values + other.values, self.differing + other.differing
        return replace(self, values=total, differing=differing, max_abs=worst)

    @property
    def sentence(self) -> str:
        """Return the result in words."""
        if not self.differing:
            return f"{self.ours} reproduces the pixel values of {self.reference} bit for bit ({self.values} values)"
        note = f" ({self.note})" if self.note else ""
        count = f"{self.differing} of {self.values} pixel values of {self.ours}"
        return f"{count} differ from {self.reference}, by at most {self.max_abs:.2g}{note}"


_MOST_CLIPS = 10**12


@dataclass(frozen=True, slots=True)
class CheckedClips:
    """The clips that a check ran on.

    Attributes:
        source: where the clips come from.
        names: names of the clips.
        videos: what the header of each video says, if the clips were read from videos of the user.
        views: temporal and spatial views of each clip, over which results are averaged.
        left_out: how many more clips were checked, none of which flips or drifts more than these; see
            `vivit_export.datasets.drift`.
    """

    source: str
    names: tuple[str, ...]
    videos: tuple[VideoFacts | None, ...] = ()
    views: tuple[int, int] = (1, 1)
    left_out: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.left_out <= _MOST_CLIPS:
            raise InputError(f"left_out={shown(self.left_out)} is not a number of clips; check the bundle again")

    @property
    def count(self) -> int:
        """How many clips were checked."""
        return len(self.names) + self.left_out


@dataclass(frozen=True, slots=True, repr=False)
class DriftReport:
    """All runs of one check, and the gate that they must meet.

    Attributes:
        reference: the model whose results the others are compared with.
        clips: the clips that were run.
        gate: the limits.
        runs: the runs.
        parity: comparisons of preprocessed pixels, if any; no pixel may differ.
        blocks: drift after each encoder block, if requested; not gated. `taps` says the same and more.
        taps: drift at each tap from the embeddings to the logits, if requested; not gated.
        view: the clips one by one; None in what was written before this existed, or if no gated run ran.
        accuracy: how often the reference and each run are right, if the labels of the clips are known.
        baseline: the check beside a stored one, if there was one to compare with; a regression is a failure.
    """

    reference: str
    clips: CheckedClips
    gate: Gate
    runs: tuple[Run, ...]
    parity: tuple[Parity, ...] = ()
    blocks: tuple[BlockDrift, ...] = ()
    taps: TapReport | None = None
    view: ClipView | None = None
    accuracy: Accuracy | None = None
    baseline: Baseline | None = None

    def __post_init__(self) -> None:
        for name, limit in self.gate.limits.items():
            if name not in METRICS:
                raise InputError(f"the gate limits {shown(name)}, which is not a metric; check the bundle again")
            if math.isnan(limit) or _is_never_met(name, limit):
                raise InputError(f"no model could pass the gate's {name}={limit:g}; check the bundle again")

    def __repr__(self) -> str:
        return f"<DriftReport: {self._verdict()}>"

    def _repr_html_(self) -> str:
        rows = [(run.engine, str(run.batch), *_cells(run.drift, run.note)) for run in self.runs]
        head = ("engine", "batch", "top-1", "largest difference, of the range", "cosine")
        return html_table(head, rows, f"Drift from {self.reference}: {self._verdict()}")

    def _verdict(self) -> str:
        drifts = [run.drift for run in self.runs if run.drift]
        largest = max((drift.max for drift in drifts if drift.max is not None), default=None)
        worst = "" if largest is None else f", largest difference {100 * largest:.2g} % of the range"
        where = f"{counted(len(drifts), 'runs')} on {counted(self.clips.count, 'clips')}"
        return f"{'passed' if self.passed else 'FAILED'}, {where}{worst}"

    @property
    def source(self) -> str:
        """Where the clips come from."""
        return self.clips.source

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the clips that are listed."""
        return self.clips.names

    @property
    def passed(self) -> bool:
        """Whether every gated run is within the gate, every pixel equal, and nothing worse than the baseline."""
        return not self.failures()

    def failures(self) -> list[str]:
        """Return a part of a sentence for each run or comparison that is beyond the gate."""
        found = []
        for run in self.runs:
            beyond = self.gate.violations(run.drift) if run.gated and run.drift else []
            if beyond:
                found.append(f"drift beyond the gate in {run.engine} at batch {run.batch}: {'; '.join(beyond)}")
        found += [parity.sentence for parity in self.parity if parity.gated and parity.differing]
        return found + ([self.baseline.sentence] if self.baseline and self.baseline.regressions else [])

    def to_json(self) -> JsonObject:
        """Return JSON types, as in the manifest and the report."""
        return dict(to_json(self))

    def require(self, consequence: str = "") -> None:
        """Raise if anything is beyond the gate; ``consequence`` is added to the sentence.

        Raises:
            DriftError: something is beyond the gate.
        """
        if found := self.failures():
            raise DriftError(found[0] + consequence)


def _cells(drift: Drift | None, note: str) -> tuple[str, str, str]:
    """Return the figures of a run for a table: top-1, largest difference, cosine."""
    if drift is None:
        return note, "", ""
    return (
        "" if drift.top1 is None else f"{100 * drift.top1:.1f} %",
        "" if drift.max is None else f"{100 * drift.max:.2g} %",
        "" if drift.cosine is None else f"{drift.cosine:.7f}",
    )

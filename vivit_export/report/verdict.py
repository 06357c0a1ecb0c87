"""What a check found, in one word and one sentence, and how much of each limit of its gate is used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vivit_export.bundle.checks import AT_LEAST, DriftReport, Run
from vivit_export.errors import counted

State = Literal["passed", "failed", "unchecked"]
_WORDS: dict[State, str] = {"passed": "PASS", "failed": "FAIL", "unchecked": "NOT CHECKED"}

METRIC_TITLES = {
    "top1": "top-1 agreement",
    "top5": "top-5 agreement",
    "agreement": "label agreement",
    "near_flips": "near flips",
    "clear_flips": "clear flips",
    "max_abs": "largest absolute logit difference",
    "max": "largest logit difference",
    "rms": "RMS logit difference",
    "kl": "KL divergence (nats)",
    "cosine": "lowest cosine of the logits",
    "embedding_cosine": "lowest cosine of the embeddings",
    "nonfinite": "NaN or infinite values",
    "accuracy_drop": "accuracy drop",
}
_SHARES = {"top1": "", "top5": "", "agreement": "", "accuracy_drop": "", "max": " of the range", "rms": " of the range"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check.

    Attributes:
        state: what it is.
        reason: why, in one sentence without a full stop.
    """

    state: State
    reason: str

    @property
    def word(self) -> str:
        """Return it in capitals."""
        return _WORDS[self.state]


@dataclass(frozen=True, slots=True)
class LimitUse:
    """How much of one limit the worst gated run uses.

    Attributes:
        metric: name of the metric, as in a gate.
        limit: what it may be, in words.
        worst: what it is, in words.
        run: where.
        share: part of the allowed drift that is used: 0 is none, 1 is all; more is beyond the limit.
        is_met: whether it is within the limit.
    """

    metric: str
    limit: str
    worst: str
    run: str
    share: float
    is_met: bool

    @property
    def width(self) -> float:
        """Length of its bar in percent."""
        return round(100 * min(1.0, self.share), 2)

    @property
    def title(self) -> str:
        """The metric for people."""
        return METRIC_TITLES.get(self.metric, self.metric)


def verdict_of(checks: DriftReport | None) -> Verdict:
    """Return the result of a check; None: there was none."""
    if checks is None:
        return Verdict("unchecked", "The export left the check out (--no-check), so nothing is known of the drift")
    ran = [run for run in checks.runs if run.gated and run.drift]
    clips = counted(checks.clips.count, "clips")
    if not checks.passed:
        return Verdict("failed", _reasons(checks))
    if not ran:
        return Verdict("unchecked", f"No gated run could be carried out on the {clips}")
    runs = "the run is" if len(ran) == 1 else f"all {len(ran)} gated runs are"
    tightest = max((use for use in limit_uses(checks) if use.share > 0), key=lambda use: use.share, default=None)
    closest = f"; closest to its limit is the {tightest.title}: {tightest.worst}, {tightest.limit}" if tightest else ""
    return Verdict("passed", f"On {clips}, {runs} within every limit{closest}")


def _reasons(checks: DriftReport) -> str:
    beyond = sorted((use for use in limit_uses(checks) if not use.is_met), key=lambda use: -use.share)
    reasons = [f"The {use.title} is {use.worst} in {use.run}, and must be {use.limit}" for use in beyond]
    reasons += [parity.sentence for parity in checks.parity if parity.gated and parity.differing]
    reasons += [checks.baseline.sentence] if checks.baseline and checks.baseline.regressions else []
    more = f"; {counted(len(reasons) - 1, 'more failures')}" if len(reasons) > 1 else ""
    return f"{reasons[0][:1].upper()}{reasons[0][1:]}{more}"


def limit_uses(checks: DriftReport) -> list[LimitUse]:
    """Return a row for each limit of the gate that a gated run measured: its worst run."""
    uses = []
    for metric, limit in sorted(checks.gate.limits.items(), key=lambda item: _order(item[0])):
        measured = gated_values(checks, metric)
        if not measured:
            continue
        at_least = metric in AT_LEAST
        lost = -math.inf if at_least else math.inf  # what is not a number is worse than any
        pick = min if at_least else max
        run, worst = pick(measured, key=lambda item: lost if math.isnan(item[1]) else item[1])
        allowed, used = (1 - limit, 1 - worst) if at_least else (limit, worst)
        is_met = worst >= limit if at_least else worst <= limit
        told = f"{'at least' if at_least else 'at most'} {metric_text(metric, limit).removesuffix(' of the range')}"
        where = f"{run.engine}, batch {run.batch}"
        uses.append(LimitUse(metric, told, metric_text(metric, worst), where, _share(used, allowed, is_met), is_met))
    return uses


def metric_text(metric: str, value: float) -> str:
    """Return a value of a metric for people, precise enough to tell it from its limit."""
    if not math.isfinite(value):
        return "not finite"
    if metric in _SHARES:
        return f"{100 * value:.4g} %{_SHARES[metric]}"
    return f"{value:.7g}" if "cosine" in metric else f"{value:.3g}"


def _order(metric: str) -> int:
    names = list(METRIC_TITLES)
    return names.index(metric) if metric in names else len(names)


def gated_values(checks: DriftReport, metric: str) -> list[tuple[Run, float]]:
    """Return each gated run that has a metric, with its value."""
    found = [(run, getattr(run.drift, metric, None)) for run in checks.runs if run.gated and run.drift]
    return [(run, value) for run, value in found if isinstance(value, int | float)]


def _share(used: float, allowed: float, is_met: bool) -> float:
    """Return used/allowed; where nothing is allowed, all or nothing."""
    if not allowed > 0:
        return 0.0 if is_met else 2.0
    share = max(0.0, used) / allowed
    return min(share, 1.0) if is_met else max(share, 1.01)

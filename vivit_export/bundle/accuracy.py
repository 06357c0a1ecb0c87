"""How often two models are right about the same labelled clips, and whether the difference between them is chance.

McNemar's test looks only at the clips about which just one of the two is right: if both are equally good, each of these
is a coin toss (Q. McNemar, Psychometrika 12 (1947), 153-157). Here it is exact, from the binomial distribution, because
there are few such clips (M. W. Fagerland, S. Lydersen and P. Laake, BMC Medical Research Methodology 13:91 (2013)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vivit_export.bundle.wilson import wilson_interval
from vivit_export.errors import InputError

CHANCE = 0.05
"""A difference whose p-value is above this may be chance."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of clips, and the interval that holds the share of all clips with 95 % confidence (Wilson's).

    Attributes:
        share: from 0 to 1.
        low: lower end of the interval.
        high: upper end.
    """

    share: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.share <= self.high <= 1:
            interval = f"{self.low:g} to {self.high:g}"
            raise InputError(f"the share {self.share:g} cannot have the interval {interval}; check the bundle again")

    @staticmethod
    def of(hits: int, count: int) -> Share:
        """Return the share of a number of clips, 1 or more, that are right."""
        low, high = wilson_interval(hits / count, count)
        return Share(hits / count, min(low, hits / count), max(high, hits / count))


@dataclass(frozen=True, slots=True)
class RunAccuracy:
    """How often one run is right, beside the reference on the same clips.

    Attributes:
        run: index of the run in `DriftReport.runs`.
        top1: share of clips whose best class is the label.
        top5: share of clips whose label is among the five best classes.
        only_reference: clips about which only the reference is right, by their best class.
        only_ours: clips about which only the run is.
        p_value: of McNemar's exact test, two-sided: how probable so uneven numbers are if both are equally good.
    """

    run: int
    top1: Share
    top5: Share
    only_reference: int
    only_ours: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often the reference and each run are right about labelled clips.

    Attributes:
        source: name of the file with the labels.
        clips: how many clips.
        top1: of the reference; see `RunAccuracy`.
        top5: the same.
        runs: of each run, those that are not gated too.
    """

    source: str
    clips: int
    top1: Share
    top5: Share
    runs: tuple[RunAccuracy, ...]


def compare_hits(run: int, reference: Sequence[bool], ours: Sequence[bool], ours_top5: Sequence[bool]) -> RunAccuracy:
    """Compare which clips two models are right about.

    Args:
        run: see `RunAccuracy`.
        reference: whether the reference's best class is the label, for each clip.
        ours: the same of the run.
        ours_top5: whether the label is among its five best.
    """
    only_reference = sum(a and not b for a, b in zip(reference, ours, strict=True))
    only_ours = sum(b and not a for a, b in zip(reference, ours, strict=True))
    count = len(ours)
    top1, top5 = Share.of(sum(ours), count), Share.of(sum(ours_top5), count)
    return RunAccuracy(run, top1, top5, only_reference, only_ours, mcnemar(only_reference, only_ours))


def merge_accuracies(parts: Sequence[Accuracy]) -> Accuracy:
    """Return what the parts of a set of clips say of the whole.

    Args:
        parts: of the same runs, on other clips each; one or more.
    """
    counts = [part.clips for part in parts]
    runs = []
    for several in zip(*(part.runs for part in parts), strict=True):
        only_reference = sum(run.only_reference for run in several)
        only_ours = sum(run.only_ours for run in several)
        top1, top5 = (_joined([getattr(run, name) for run in several], counts) for name in ("top1", "top5"))
        p_value = mcnemar(only_reference, only_ours)
        runs.append(RunAccuracy(several[0].run, top1, top5, only_reference, only_ours, p_value))
    top1, top5 = (_joined([getattr(part, name) for part in parts], counts) for name in ("top1", "top5"))
    return Accuracy(parts[0].source, sum(counts), top1, top5, tuple(runs))


def _joined(shares: Sequence[Share], counts: Sequence[int]) -> Share:
    # Each is a number of clips by that of all, so rounding finds the number.
    return Share.of(sum(round(each.share * count) for each, count in zip(shares, counts, strict=True)), sum(counts))


def mcnemar(first: int, second: int) -> float:
    """Return the p-value of McNemar's exact test, two-sided.

    Args:
        first: how many clips only one of the two is right about.
        second: how many only the other is.

    Returns:
        From 0 to 1; 1 if there is no such clip.
    """
    total = first + second
    # Logarithms, because 2 to the -total is too small for a float beyond 1,074 clips.
    whole = math.lgamma(total + 1) - total * math.log(2)
    tail = (math.exp(whole - math.lgamma(k + 1) - math.lgamma(total - k + 1)) for k in range(min(first, second) + 1))
    return min(1.0, 2 * math.fsum(tail))

"""How sure a check on few clips is of its agreement."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.wilson import CONFIDENCE, Z, wilson_interval
from vivit_export.errors import counted

_USUAL = 0.99  # what agreement is measured by where the gate does not limit it


@dataclass(frozen=True, slots=True)
class Certainty:
    """What a check on few clips says of all clips: the share of them with the same best class.

    Attributes:
        top1: the share found, the lowest of the gated runs.
        clips: on how many clips.
        low: with `CONFIDENCE`, the true share is at least this,
        high: and at most this.
        limit: the gate's limit on it, or 0.99.
        is_gated: whether that limit is the gate's.
        clips_to_settle: how many clips with the same share would leave ``limit`` out of the interval; None: none would.
    """

    top1: float
    clips: int
    low: float
    high: float
    limit: float
    is_gated: bool
    clips_to_settle: int | None

    @property
    def is_settled(self) -> bool:
        """Whether the clips are enough to say that the share is at least the limit, or is not."""
        return self.low >= self.limit or self.high < self.limit

    @property
    def sentence(self) -> str:
        """Return it in words."""
        text = (
            f"top-1 agreement is {_percent(self.top1)} on {counted(self.clips, 'clips')}, and with "
            f"{_percent(CONFIDENCE)} confidence from {_percent(self.low)} to {_percent(self.high)} on all"
        )
        if self.is_settled or self.clips_to_settle is None:
            return text
        return f"{text}; {self.clips_to_settle} clips like these would settle whether it reaches {_percent(self.limit)}"


def certainty_of(report: DriftReport) -> Certainty | None:
    """Return how sure a check is of its agreement; None if there is none, as of a regression.

    A clip counts once, however often a batch repeats it.
    """
    shares = [run.drift.top1 for run in report.runs if run.gated and run.drift and run.drift.top1 is not None]
    count = report.clips.count
    if not shares or not count:
        return None
    share, limit = min(shares), report.gate.limits.get("top1")
    asked = _USUAL if limit is None else limit
    low, high = wilson_interval(share, count)
    return Certainty(share, count, low, high, asked, limit is not None, clips_to_settle(share, asked))


def clips_to_settle(share: float, limit: float) -> int | None:
    """Return how many clips with this share settle that it is, or is not, at least a limit.

    Args:
        share: what was found, from 0 to 1.
        limit: from 0 to 1.

    Returns:
        The smallest number for which `wilson_interval` leaves the limit out; None: no number does, because the share
        equals the limit, up to rounding.
    """
    if share == limit:
        return None
    # One end of the interval reaches the limit where (share - limit)^2 = z^2 limit (1 - limit) / n: Wilson's own
    # equation. A limit of 0 or 1 is an end of the interval for any number of clips.
    if not 0 < limit < 1:
        return 1
    gap = (share - limit) ** 2
    if gap < sys.float_info.min:
        return None
    return math.floor(Z**2 * limit * (1 - limit) / gap) + 1


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"

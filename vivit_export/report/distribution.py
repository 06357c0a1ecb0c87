"""The drift of all clips of a check as one drawing: a dot for each clip, and what stands out in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.clip_view import FLIPS, ClipView, Flip
from vivit_export.report.charts import percent
from vivit_export.report.clips import clip_drift_text, flips_sentence

_FARTHEST_LIMIT = 4.0  # times the largest drift: farther away, the limit would press all dots to the left
MOST_DOTS = 4_000
"""Clips that a page draws, the worst."""
_GOLDEN = 0.6180339887498949  # spreads dots that are drawn one after the other evenly over the height


@dataclass(frozen=True, slots=True)
class Dot:
    """A clip.

    Attributes:
        x: its drift, in percent of the width.
        y: a place of its own, in percent of the height.
        flip: whether its decision changed.
    """

    x: float
    y: float
    flip: Flip


@dataclass(frozen=True, slots=True)
class Distribution:
    """The drift of the clips of a check, or of the `MOST_DOTS` worst.

    Attributes:
        dots: clips, those with a flip last, so that nothing hides them.
        limit: where the gate's limit lies in percent of the width; None: beyond the right end, or there is none.
        limit_text: what it is; empty: there is none.
        end: drift at the right end, in words.
        sentence: how many flipped, and the median, without a full stop.
        measure: what the drift is of.
        flips: which kinds of flips there are, for the legend.
    """

    dots: tuple[Dot, ...]
    limit: float | None
    limit_text: str
    end: str
    sentence: str
    measure: str
    flips: tuple[Flip, ...]


def distribution_of(report: DriftReport) -> Distribution | None:
    """Return the drift of each clip of a check; None if it was not recorded."""
    view = report.view
    if view is None or not view.drift or len(view.flips) != len(view.drift):
        return None
    finite = sorted(drift for drift in view.drift if drift is not None)
    limit = report.gate.limits.get("max") if view.measure == "logits" else None
    most = finite[-1] if finite else 0.0
    is_near = limit is not None and 0 < limit <= _FARTHEST_LIMIT * most
    end = 1.05 * max(most, limit or 0.0) if is_near else 1.05 * most
    dots = [
        Dot(100.0 if drift is None else percent(drift, end), round(8 + 84 * (i * _GOLDEN % 1), 2), flip)
        for i, (drift, flip) in enumerate(zip(view.drift, view.flips, strict=True))
    ]
    if len(dots) > MOST_DOTS:
        dots = sorted(dots, key=lambda dot: (FLIPS.index(dot.flip), dot.x))[-MOST_DOTS:]
    return Distribution(
        dots=tuple(sorted(dots, key=lambda dot: FLIPS.index(dot.flip))),
        limit=percent(limit, end) if is_near and limit is not None else None,
        limit_text="" if limit is None else clip_drift_text(view, limit),
        end=clip_drift_text(view, end),
        sentence=_sentence(report, view, finite, len(dots)),
        measure="largest logit difference" if view.measure == "logits" else "1 minus the cosine of the embedding",
        flips=tuple(kind for kind in FLIPS[1:] if kind in view.flips),
    )


def _sentence(report: DriftReport, view: ClipView, finite: Sequence[float], dots: int) -> str:
    words = flips_sentence(view, report.clips.count)
    if dots < report.clips.count:
        words += f"; the {dots} that drift most are drawn"
    if not finite or report.clips.left_out:
        return words
    middle, tail = (finite[min(len(finite) - 1, int(share * len(finite)))] for share in (0.5, 0.95))
    return f"{words}, median {clip_drift_text(view, middle)}, 95th percentile {clip_drift_text(view, tail)}"

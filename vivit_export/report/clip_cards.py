"""The clips of a check that flipped or drifted most, as a page shows them: what both models say of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.clip_view import ClipDrift, ClipView, Flip, Score, Strata
from vivit_export.report.charts import percent
from vivit_export.report.clips import clip_drift_text
from vivit_export.report.table import Table, table_of

OPEN = 12
"""How many clips a page shows at once; the others are folded away."""

_MOST_FILMS = 24


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One of the five best labels.

    Attributes:
        label: its name.
        value: its probability or logit in words.
        width: its probability in percent.
        is_new: whether the other model does not have it in this place.
    """

    label: str
    value: str
    width: float
    is_new: bool


@dataclass(frozen=True, slots=True)
class ClipCard:
    """A clip.

    Attributes:
        name: its name.
        picture: ``data:`` address of a picture; empty: there is none.
        flip: whether its decision changed.
        words: its drift, margin and where that was, in short phrases.
        reference: five best labels of the reference.
        ours: those of the run.
    """

    name: str
    picture: str
    flip: Flip
    words: tuple[str, ...]
    reference: tuple[ScoreRow, ...]
    ours: tuple[ScoreRow, ...]


def pictured_rows(report: DriftReport | None) -> list[int]:
    """Return which clips of a check a page shows: those that it lists, or else the first few."""
    if report is None:
        return []
    if report.view is None:
        return list(range(min(_MOST_FILMS, len(report.names))))
    listed = {clip.name for clip in report.view.clips}
    return [row for row, name in enumerate(report.names) if name in listed]


def cards_of(report: DriftReport, pictures: Mapping[str, str]) -> tuple[ClipCard, ...]:
    """Return the clips that a check lists, the worst first.

    Args:
        report: the check.
        pictures: by name of the clip, as ``data:`` addresses.
    """
    view = report.view
    if view is None:
        return ()
    return tuple(
        ClipCard(
            clip.name,
            pictures.get(clip.name, ""),
            clip.flip,
            tuple(_words(report, view, clip)),
            _rows(clip.reference, clip.ours),
            _rows(clip.ours, clip.reference),
        )
        for clip in view.clips
    )


def strata_tables(report: DriftReport) -> tuple[Table, ...]:
    """Return a table for each property that differs among the clips; a column of zeros is left out."""
    view = report.view
    found = [_strata(strata, view) for strata in view.strata] if view else []
    return tuple(table for table in found if table is not None)


def _strata(strata: Strata, view: ClipView) -> Table | None:
    rows = [
        (
            group.value,
            str(group.clips),
            str(group.clear_flips or ""),
            str(group.near_flips or ""),
            clip_drift_text(view, group.drift),
        )
        for group in strata.groups
    ]
    more = f" ({strata.left_out} more, none worse)" if strata.left_out else ""
    return table_of(f"By {strata.by}{more}", (strata.by, "clips", "clear flips", "near flips", "largest drift"), rows)


def _words(report: DriftReport, view: ClipView, clip: ClipDrift) -> list[str]:
    of_embedding = None if clip.embedding_cosine is None else 1 - clip.embedding_cosine
    drift = clip.max if view.measure == "logits" else of_embedding
    words = [f"drift {clip_drift_text(view, drift)}"]
    if clip.margin is not None:
        tie = ", near a tie" if clip.margin <= view.tie_margin else ""
        words.append(f"margin {100 * clip.margin:.2g} % of the range{tie}")
    if clip.nonfinite:
        words.append(f"{clip.nonfinite} NaN or infinite")
    if clip.changed:
        words.append(f"changed: {', '.join(clip.changed)}")
    if clip.truth is not None:
        words.append(f"truth: {clip.truth}")
    if clip.run < len(report.runs):
        run = report.runs[clip.run]
        words.append(f"{run.engine}, batch {run.batch}")
    ungated = [report.runs[i].engine for i in clip.flips_in if i < len(report.runs) and not report.runs[i].gated]
    return [*words, *(f"{name} flips too" for name in ungated)]


def _rows(scores: tuple[Score, ...], other: tuple[Score, ...]) -> tuple[ScoreRow, ...]:
    theirs = [score.label for score in other]
    return tuple(
        ScoreRow(
            score.label,
            _value(score),
            percent(score.probability or 0.0, 1.0),
            is_new=i >= len(theirs) or theirs[i] != score.label,
        )
        for i, score in enumerate(scores)
    )


def _value(score: Score) -> str:
    if score.probability is not None:
        return f"{100 * score.probability:.1f} %"
    return "not finite" if score.logit is None else f"{score.logit:.4g}"

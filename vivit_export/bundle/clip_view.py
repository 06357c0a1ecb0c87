"""The clips of a check one by one: which drifted most, which decisions changed, and what these clips have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Flip = Literal["none", "near", "clear"]
"""Whether the decision on a clip changed, and if so, whether the reference was close to a tie."""
FLIPS: tuple[Flip, ...] = get_args(Flip)
"""The same, the worst last."""
Measure = Literal["logits", "embedding"]
Property = Literal["class", "margin", "folder", "size", "fps", "seconds", "codec"]
"""What clips are grouped by."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What the header of a video says.

    Attributes:
        width: of a frame as it is coded, in pixels; 0: not known.
        height: the same.
        fps: average frames per second; None: not known.
        seconds: duration; None: not known.
        codec: FFmpeg's name of it.
    """

    width: int
    height: int
    fps: float | None
    seconds: float | None
    codec: str


@dataclass(frozen=True, slots=True)
class Score:
    """What a model says of one label.

    Attributes:
        label: its name, or its index.
        logit: its logit; None: not a finite number.
        probability: from 0 to 1, of the softmax or the sigmoid as the task says; None for a regression, or if it is not
            a number.
    """

    label: str
    logit: float | None
    probability: float | None


@dataclass(frozen=True, slots=True)
class ClipDrift:
    """The drift of one clip, in the gated run in which it is largest; a run that changes the decision comes first.

    What the model or its task does not have is None.

    Attributes:
        name: name of the clip, as in `CheckedClips.names`.
        run: index of that run in `DriftReport.runs`.
        flip: whether the decision changed in it.
        changed: labels that are present in only one of the two; multi-label only.
        flips_in: indices of all runs that changed the decision, those that are not gated too: if the eager model in the
            target type did, the type changed it and not the engine.
        margin: how clear the reference was: its best minus its second-best logit, relative to the range of all
            reference logits. Of a multi-label task, twice the distance from 0 of the clearest logit that changed sides,
            or of the least clear one. The decision is near a tie up to `ClipView.tie_margin`.
        max_abs: largest absolute logit difference; None also if it is not finite.
        max: the same, relative to the logit range.
        kl: KL divergence of the labels, in nats; see `Drift.kl`.
        cosine: cosine of the logits.
        embedding_cosine: cosine of the embedding.
        nonfinite: number of NaN or infinite values.
        reference: the five most probable labels of the reference.
        ours: those of the run.
        truth: the label that the clip is known to have, if the check was told.
    """

    name: str
    run: int
    flip: Flip
    changed: tuple[str, ...]
    flips_in: tuple[int, ...]
    margin: float | None
    max_abs: float | None
    max: float | None
    kl: float | None
    cosine: float | None
    embedding_cosine: float | None
    nonfinite: int
    reference: tuple[Score, ...]
    ours: tuple[Score, ...]
    truth: str | None = None


@dataclass(frozen=True, slots=True)
class Stratum:
    """The clips of a check that have something in common.

    Attributes:
        value: what they have in common, in words.
        clips: how many.
        near_flips: how many of them flipped near a tie.
        clear_flips: how many flipped although the reference was clear.
        drift: the largest drift of them, as in `ClipView.drift`; None: not finite.
    """

    value: str
    clips: int
    near_flips: int
    clear_flips: int
    drift: float | None


@dataclass(frozen=True, slots=True)
class Strata:
    """All clips of a check, grouped by one property.

    Attributes:
        by: the property. ``class`` is the known label, or else the best class of the reference.
        groups: two or more, in the order of the property; of classes and folders, the worst come first.
        left_out: how many more groups there are, none of which is worse.
    """

    by: Property
    groups: tuple[Stratum, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class ClipView:
    """The clips of a check one by one.

    The lists ``drift``, ``margins`` and ``flips`` have one entry for each of `CheckedClips.names`. All is of the gated
    runs; each clip counts with its worst.

    Attributes:
        measure: what ``drift`` is of: the largest logit difference relative to the range, or else 1 minus the cosine of
            the embedding.
        tie_margin: see `Gate.tie_margin`.
        clips: clips with a flip, clear ones first, and then those with the largest drift; the largest come first.
        flips_left_out: how many more clips have a flip; there are never more than 120 clips in the list.
        drift: of each clip; None: not finite.
        margins: of each clip; None: the task has none.
        flips: of each clip.
        strata: groups by each property that differs among the clips.
    """

    measure: Measure
    tie_margin: float
    clips: tuple[ClipDrift, ...]
    flips_left_out: int
    drift: tuple[float | None, ...]
    margins: tuple[float | None, ...]
    flips: tuple[Flip, ...]
    strata: tuple[Strata, ...] = ()

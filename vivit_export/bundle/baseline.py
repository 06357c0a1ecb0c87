"""Whether a check is worse than a stored one on the same clips, with the certainty of both.

Each clip is compared with itself, as it counts in `ClipView`: with the worst of the gated runs. A regression is

- a clip with values that are NaN or infinite, or with a clear flip, that the stored check did not have;
- more clips with a flip than before, beyond chance: flips near a tie come and go, so each clip that flips in only one
  of the two checks is a coin toss, and their numbers must be so uneven with a probability of at most 5 % (McNemar's
  exact test, see `accuracy`);
- a larger drift, beyond chance and beyond `GROWTH`: of the clips whose drift differs, too many drift more (sign test,
  which is the same binomial test), and the median clip drifts that much more. It takes 6 clips to be sure;
- a top-1 accuracy whose interval lies below that of the stored check, if both know the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from vivit_export.bundle.accuracy import CHANCE, Accuracy, Share, mcnemar
from vivit_export.errors import InputError, counted

if TYPE_CHECKING:
    from vivit_export.bundle.checks import CheckedClips, DriftReport
    from vivit_export.bundle.clip_view import ClipView

GROWTH = 1.5
"""By how much the drift of the median clip must have grown."""
NOISE = 1e-6
"""A drift below this share of the logit range is rounding in float32, however much it grew."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Baseline:
    """A check beside a stored one.

    Attributes:
        source: name of the file with the stored check.
        clips: how many clips both ran on.
        larger: clips that drift more than before.
        smaller: clips that drift less.
        growth: drift of the median clip relative to before; None: not measured.
        regressions: what is worse, each a part of a sentence; empty: nothing.
    """

    source: str
    clips: int
    larger: int
    smaller: int
    growth: float | None
    regressions: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Return the result in words."""
        growth = "" if self.growth is None else f", the median {self.growth:.3g} times"
        drift = (
            f"{self.larger} of {counted(self.clips, 'clips')} drift more than before and {self.smaller} less{growth}"
        )
        verdict = "; ".join(self.regressions) if self.regressions else "no regression"
        return f"{verdict} against {self.source} ({drift})"


def compare_checks(now: DriftReport, before: DriftReport, source: str) -> Baseline:
    """Compare a check with a stored one.

    Args:
        now: the check.
        before: the stored one.
        source: name of its file.

    Raises:
        InputError: one of them ran on other clips, or has no results for each clip.
    """
    a, b = _view(before, source), now.view
    if b is None:
        raise InputError(f"no gated run could run here, so nothing can be compared with {source}")
    require_same_clips(now.clips, before, source)
    places = {name: place for place, name in enumerate(before.names)}
    order = [places[name] for name in now.names]
    old, new = [a.drift[i] for i in order], b.drift
    pairs = [(x, y) for x, y in zip(old, new, strict=True) if x is not None and y is not None]
    larger, smaller = sum(y > x for x, y in pairs), sum(y < x for x, y in pairs)
    growth = median([y / max(x, NOISE) for x, y in pairs]) if pairs else None
    found = [
        *_broken(now.names, old, new),
        *_flips(now.names, [a.flips[i] for i in order], b.flips),
        *_drift(larger, smaller, growth, [y for _, y in pairs]),
        *_accuracy(now.accuracy, before.accuracy),
    ]
    return Baseline(source, len(now.names), larger, smaller, growth, tuple(found))


def require_same_clips(clips: CheckedClips, before: DriftReport, source: str) -> None:
    """Refuse a stored check on other clips, or on other views of them.

    Raises:
        InputError: it ran on others, or more, or fewer; or has no results for each clip.
    """
    names, views = clips.names, clips.views
    _view(before, source)
    if clips.left_out:
        raise InputError(
            f"a check on {counted(clips.count, 'clips')} lists only {len(names)} of them, so it cannot be compared "
            f"clip by clip with {source}; compare at most {len(names)} clips"
        )
    if views != before.clips.views:
        words = ["x".join(map(str, each)) for each in (before.clips.views, views)]
        raise InputError(f"{source} is of a check with {words[0]} views, and this one has {words[1]}; use the same")
    if sorted(names) != sorted(before.names):
        other = sorted(set(names).symmetric_difference(before.names))
        example = f", such as {other[0]}" if other else ""
        raise InputError(
            f"{source} is of a check on {counted(len(before.names), 'clips')}, which are not the {len(names)} of this "
            f"one{example}; check on the same clips"
        )


def _view(before: DriftReport, source: str) -> ClipView:
    view, count = before.view, len(before.names)
    if view is None:
        raise InputError(f"{source} has no results for each clip, because an earlier version wrote it; write it again")
    if before.clips.left_out:
        raise InputError(
            f"{source} lists only {count} of {counted(before.clips.count, 'clips')}, so nothing can be compared with "
            f"it clip by clip; write it again, on at most {count} clips"
        )
    if (
        not len(view.drift) == len(view.flips) == count
        or len(set(before.names)) != count
        or any(drift is not None and drift < 0 for drift in view.drift)
    ):
        raise InputError(f"{source} is incomplete: it must list each clip once; write it again")
    return view


def _broken(names: Sequence[str], old: Sequence[float | None], new: Sequence[float | None]) -> list[str]:
    worse = [name for name, x, y in zip(names, old, new, strict=True) if x is not None and y is None]
    return [f"NaN or infinite values in {_listed(worse)}"] if worse else []


def _flips(names: Sequence[str], old: Sequence[str], new: Sequence[str]) -> list[str]:
    both = list(zip(names, old, new, strict=True))
    clear = [name for name, x, y in both if y == "clear" and x != "clear"]
    found = [f"{counted(len(clear), 'new clear flips')} in {_listed(clear)}"] if clear else []
    gained = sum(x == "none" != y for _, x, y in both)
    lost = sum(y == "none" != x for _, x, y in both)
    p_value = mcnemar(gained, lost)
    if gained > lost and p_value <= CHANCE:
        found.append(f"{gained} clips flip that did not, and {lost} do no more (p = {p_value:.2g})")
    return found


def _drift(larger: int, smaller: int, growth: float | None, new: Sequence[float]) -> list[str]:
    if growth is None or growth < GROWTH or median(new) < NOISE or larger <= smaller:
        return []
    p_value = mcnemar(larger, smaller)
    if p_value > CHANCE:
        return []
    return [f"the drift of the median clip grew {growth:.3g} times, and that of {larger} clips (p = {p_value:.2g})"]


def _accuracy(now: Accuracy | None, before: Accuracy | None) -> list[str]:
    if now is None or before is None or not now.runs or not before.runs:
        return []
    new, old = (_worst(accuracy) for accuracy in (now, before))
    if new.high >= old.low:
        return []
    return [f"top-1 accuracy fell from {100 * old.share:.1f} % to {100 * new.share:.1f} %, and the intervals are apart"]


def _worst(accuracy: Accuracy) -> Share:
    return min((run.top1 for run in accuracy.runs), key=lambda top1: top1.share)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"

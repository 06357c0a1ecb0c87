"""Group the clips of a check by what they have in common, so that a reader sees where drift comes from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import repeat
from pathlib import PurePosixPath

from vivit_export.bundle.checks import CheckedClips
from vivit_export.bundle.clip_view import Flip, Property, Strata, Stratum, VideoFacts

_MOST_GROUPS = 12
_PARTS = 4  # of numbers that take many values, each with as many clips


def strata_of(
    clips: CheckedClips,
    classes: Sequence[str],
    margins: Sequence[float | None],
    tie_margin: float,
    drift: Sequence[float | None],
    flips: Sequence[Flip],
) -> tuple[Strata, ...]:
    """Group clips by each property in which they differ.

    Args:
        clips: their names, and what is known of their files.
        classes: best class of each by the reference; empty: there is none.
        margins: see `ClipView.margins`, as for the next three.
        tie_margin: see there.
        drift: see there.
        flips: see there.
    """
    videos = clips.videos or (None,) * len(clips.names)
    # Each is read once, from the first clip to the last, so that none takes memory of its own for every clip.
    words: dict[Property, Iterable[str | None]] = {
        "class": classes or repeat(None, len(clips.names)),
        "margin": _margin_words(margins, tie_margin),
        "folder": (PurePosixPath(name).parent.as_posix() for name in clips.names),
        "size": (f"{v.width}x{v.height}" if v and v.width and v.height else None for v in videos),
        "fps": _number_words(videos, lambda v: v.fps and round(v.fps, 2), "fps"),
        "seconds": _number_words(videos, lambda v: v.seconds and round(v.seconds, 2), "s"),
        "codec": (v.codec if v else None for v in videos),
    }
    found = (_strata(by, values, drift, flips) for by, values in words.items())
    return tuple(strata for strata in found if strata is not None)


def _strata(
    by: Property, values: Iterable[str | None], drift: Sequence[float | None], flips: Sequence[Flip]
) -> Strata | None:
    found: dict[str, _Group] = {}
    for value, each, flip in zip(values, drift, flips, strict=True):
        if value is not None:
            found.setdefault(value, _Group()).add(each, flip)
    if len(found) < 2:
        return None
    groups = [Stratum(value, g.clips, g.near, g.clear, g.drift) for value, g in found.items()]
    if by in ("margin", "fps", "seconds"):
        return Strata(by, tuple(sorted(groups, key=lambda group: _first_number(group.value))))
    groups.sort(key=lambda group: (-group.clear_flips, -group.near_flips, -_size(group.drift), group.value))
    return Strata(by, tuple(groups[:_MOST_GROUPS]), max(0, len(groups) - _MOST_GROUPS))


@dataclass(slots=True)
class _Group:
    """The clips so far that have something in common; see `Stratum`."""

    clips: int = 0
    near: int = 0
    clear: int = 0
    drift: float | None = 0.0

    def add(self, drift: float | None, flip: Flip) -> None:
        self.drift = drift if not self.clips or _size(drift) > _size(self.drift) else self.drift
        self.clips += 1
        self.near += flip == "near"
        self.clear += flip == "clear"


def _size(drift: float | None) -> float:
    return float("inf") if drift is None else drift


def _first_number(value: str) -> float:
    return float(value.partition(" ")[0])


def _margin_words(margins: Sequence[float | None], tie_margin: float) -> Iterator[str | None]:
    """Yield words that begin with the lower end; what is near a tie is a group of its own."""
    parts = _parts({margin for margin in margins if margin is not None and margin > tie_margin})
    near = f"0 to {tie_margin:.2g} (near a tie)"
    for margin in margins:
        yield None if margin is None else near if margin <= tie_margin else parts(margin)


def _number_words(
    videos: Sequence[VideoFacts | None], number: Callable[[VideoFacts], float | None], unit: str
) -> Iterator[str | None]:
    parts = _parts({value for video in videos if video and (value := number(video)) is not None})
    for video in videos:
        value = number(video) if video else None
        yield None if value is None else f"{parts(value)} {unit}"


def _parts(numbers: AbstractSet[float]) -> Callable[[float], str]:
    """Return what names the part that a number is in: the number itself if there are few, or else a range."""
    ranks = sorted(numbers)
    if len(ranks) <= _PARTS:
        return lambda number: f"{number:.4g}"
    starts = [len(ranks) * part // _PARTS for part in range(_PARTS)]
    ends = [ranks[start] for start in starts[1:]]
    words = []
    for first, after in zip(starts, [*starts[1:], len(ranks)], strict=True):
        low, high = ranks[first], ranks[after - 1]
        words.append(f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}")
    return lambda number: words[bisect_right(ends, number)]

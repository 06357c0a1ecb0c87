"""Group the clips of a check by what they have in common, so that a reader sees where drift comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    words: dict[Property, Sequence[str | None]] = {
        "class": classes or [None] * len(clips.names),
        "margin": _margin_words(margins, tie_margin),
        "folder": [PurePosixPath(name).parent.as_posix() for name in clips.names],
        "size": [f"{v.width}x{v.height}" if v and v.width and v.height else None for v in videos],
        "fps": _number_words(videos, lambda v: v.fps and round(v.fps, 2), "fps"),
        "seconds": _number_words(videos, lambda v: v.seconds and round(v.seconds, 2), "s"),
        "codec": [v.codec if v else None for v in videos],
    }
    found = (_strata(by, values, drift, flips) for by, values in words.items())
    return tuple(strata for strata in found if strata is not None)


def _strata(
    by: Property, values: Sequence[str | None], drift: Sequence[float | None], flips: Sequence[Flip]
) -> Strata | None:
    members: dict[str, list[int]] = {}
    for clip, value in enumerate(values):
        if value is not None:
            members.setdefault(value, []).append(clip)
    if len(members) < 2:
        return None
    groups = [_stratum(value, clips, drift, flips) for value, clips in members.items()]
    if by in ("margin", "fps", "seconds"):
        return Strata(by, tuple(sorted(groups, key=lambda group: _first_number(group.value))))
    groups.sort(key=lambda group: (-group.clear_flips, -group.near_flips, -_size(group.drift), group.value))
    return Strata(by, tuple(groups[:_MOST_GROUPS]), max(0, len(groups) - _MOST_GROUPS))


def _stratum(value: str, clips: Sequence[int], drift: Sequence[float | None], flips: Sequence[Flip]) -> Stratum:
    kinds = [flips[clip] for clip in clips]
    worst = max((drift[clip] for clip in clips), key=_size)
    return Stratum(value, len(clips), kinds.count("near"), kinds.count("clear"), worst)


def _size(drift: float | None) -> float:
    return float("inf") if drift is None else drift


def _first_number(value: str) -> float:
    return float(value.partition(" ")[0])


def _margin_words(margins: Sequence[float | None], tie_margin: float) -> list[str | None]:
    """Return words that begin with the lower end; what is near a tie is a group of its own."""
    clear = [margin for margin in margins if margin is not None and margin > tie_margin]
    parts = _parts(clear)

    def words(margin: float | None) -> str | None:
        if margin is None:
            return None
        return f"0 to {tie_margin:.2g} (near a tie)" if margin <= tie_margin else parts(margin)

    return [words(margin) for margin in margins]


def _number_words(
    videos: Sequence[VideoFacts | None], number: Callable[[VideoFacts], float | None], unit: str
) -> list[str | None]:
    numbers = [number(video) if video else None for video in videos]
    parts = _parts([value for value in numbers if value is not None])
    return [None if value is None else f"{parts(value)} {unit}" for value in numbers]


def _parts(numbers: Sequence[float]) -> Callable[[float], str]:
    """Return what names the part that a number is in: the number itself if there are few, or else a range."""
    ranks = sorted(set(numbers))
    if len(ranks) <= _PARTS:
        return lambda number: f"{number:.4g}"
    ends = [ranks[min(len(ranks) - 1, len(ranks) * part // _PARTS)] for part in range(1, _PARTS + 1)]

    def part(number: float) -> str:
        at = next(i for i, end in enumerate(ends) if number < end or end == ends[-1])
        first = ranks[0] if at == 0 else ends[at - 1]
        last = max(rank for rank in ranks if rank < ends[at] or at == _PARTS - 1)
        return f"{first:.4g}" if first == last else f"{first:.4g} to {last:.4g}"

    return part

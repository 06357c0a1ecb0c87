"""Spans as WebVTT, the captions that browsers and players show (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vivit_export.printing import one_line
from vivit_export.runtime.spans import ActionSpan

HEADER = "WEBVTT\n"
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})


def cue(span: ActionSpan) -> str:
    """Return the cue of a span: an empty line, the times, and a line for each of its labels."""
    start = round(1000 * span.start_seconds)
    end = max(start + 1, round(1000 * span.end_seconds))  # the format has no empty cues
    lines = [
        f"{one_line(label.translate(_ESCAPES)).strip() or '?'} {100 * score:.0f} %" for label, score in _labels(span)
    ]
    return "\n".join(["", f"{_stamp(start)} --> {_stamp(end)}", *lines, ""])


def _labels(span: ActionSpan) -> Iterator[tuple[str, float]]:
    """The span's own label first: of several that are seen at once it may not be the one with the highest score."""
    yield span.label, span.score
    yield from ((label, score) for label, score in span.top if label != span.label)


def _stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{rest:03}"


class InOrder:
    """Hands on spans in the order in which they begin, as cues must follow each other."""

    def __init__(self) -> None:
        self._held: list[ActionSpan] = []

    def release(self, spans: Iterable[ActionSpan], open_since: float) -> Iterator[ActionSpan]:
        """Add spans, and yield those before which none can begin anymore.

        Args:
            spans: have ended.
            open_since: where the earliest span begins that may still grow.
        """
        self._held = sorted([*self._held, *spans], key=lambda span: (span.start_seconds, span.end_seconds))
        while self._held and self._held[0].start_seconds <= open_since:
            yield self._held.pop(0)

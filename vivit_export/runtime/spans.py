"""Join the predictions of windows to spans: what is seen from when to when.

Each window stands for the time around its middle, half-way to the middles of its neighbors; the first and the last
also for what is before and after it. A label's span begins with a window whose score reaches ``on``, goes on as long as
scores stay at ``off`` or above, bridges gaps of at most ``bridge`` seconds, and is dropped if it is shorter than
``shortest``::

    score   on  ------------------x--x------------------------------
                               x        x
            off ------------x--------------x--------------------x---
                   x  x  x                    x  x  x  x  x  x
    span                    [begins here    ends]

(Frames before the window that reaches ``on`` belong to no span: a span never begins below ``on``.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vivit_export.errors import UsageError, option
from vivit_export.records import JsonObject
from vivit_export.runtime.session.prediction import Prediction

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SpanRule:
    """How windows become spans. The defaults are those of ``benchmarks/spans.py``, chosen on the demo's task.

    Attributes:
        on: score from which a span begins, in (0, 1].
        off: score below which it ends, in [0, on].
        shortest: length below which a span is dropped, in seconds.
        bridge: longest gap within a span, in seconds.
    """

    on: float = 0.5
    off: float = 0.2
    shortest: float = 0.8
    bridge: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.on <= 1:
            raise UsageError(f"{option('span_on', f'{self.on:g}')} must be a score above 0, and at most 1")
        if not 0 <= self.off <= self.on:
            raise UsageError(
                f"{option('span_off', f'{self.off:g}')} must be a score from 0 to {option('span_on', f'{self.on:g}')}"
            )
        for name, value in (("span_shortest", self.shortest), ("span_bridge", self.bridge)):
            if not 0 <= value < math.inf:
                raise UsageError(f"{option(name, f'{value:g}')} must be a number of seconds, 0 or more")


@dataclass(frozen=True, slots=True, eq=False)
class ActionSpan:
    """What is seen from when to when.

    Attributes:
        source: the video.
        start_seconds: its beginning, from the first frame of the video.
        end_seconds: its end.
        label: what is seen.
        score: mean score of the label over the windows of the span.
        top: the labels with the highest mean scores over these windows, best first, with these.
    """

    source: str
    start_seconds: float
    end_seconds: float
    label: str
    score: float
    top: tuple[tuple[str, float], ...]

    def to_json(self) -> JsonObject:
        """Return JSON types."""
        return {
            "video": self.source,
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
            "label": self.label,
            "score": self.score,
            "top": [{"label": label, "probability": score} for label, score in self.top],
        }


@dataclass(slots=True)
class _Run:
    """A span that may still grow.

    Attributes:
        start: where it begins.
        end: where its last window ends.
        total: sum of the scores of its windows, (num_labels,).
        count: how many these are; those in gaps do not count.
        is_on: whether the last window belongs to it; else it is in a gap, which a window that reaches ``on`` ends.
    """

    start: float
    end: float
    total: Float64
    count: int = 1
    is_on: bool = True


class SpanFinder:
    """Finds the spans of one video, window by window.

    Memory: the scores of one window for each label that is seen at the time.

    Args:
        source: what spans say they come from.
        rule: how windows become spans.
        top_k: how many labels a span names.
    """

    def __init__(self, source: str, rule: SpanRule, top_k: int = 5) -> None:
        self._source, self._rule, self._top_k = source, rule, top_k
        self._runs: dict[int, _Run] = {}
        self._labels: tuple[str, ...] = ()
        self._last: tuple[tuple[float, float], Float64] | None = None  # the window whose end is not known yet
        self._begin = 0.0  # of what it stands for

    @property
    def open_since(self) -> float:
        """Where the earliest span begins that may still grow; infinity if there is none."""
        return min((run.start for run in self._runs.values()), default=math.inf)

    def push(self, span_seconds: tuple[float, float], prediction: Prediction) -> Iterator[ActionSpan]:
        """Add the next window, and yield the spans that end before it, in the order in which they ended.

        Args:
            span_seconds: (start, end) of the window, not before the last one.
            prediction: a classification's.

        Raises:
            UsageError: it is not a classification.
        """
        scores = prediction.probabilities.astype(np.float64)
        self._labels = prediction.labels
        if self._last is None:
            self._begin = span_seconds[0]
        else:
            edge = (sum(self._last[0]) + sum(span_seconds)) / 4
            yield from self._advance(self._begin, edge, self._last[1])
            self._begin = edge
        self._last = span_seconds, scores

    def finish(self) -> Iterator[ActionSpan]:
        """Yield the spans that are left at the end of the video, or where it was interrupted."""
        if self._last is not None:
            yield from self._advance(self._begin, self._last[0][1], self._last[1])
        self._last = None
        for label in sorted(self._runs, key=lambda number: (self._runs[number].start, number)):
            yield from self._close(label)

    def _advance(self, begin: float, end: float, scores: Float64) -> Iterator[ActionSpan]:
        for label, run in list(self._runs.items()):
            threshold = self._rule.off if run.is_on else self._rule.on
            if scores[label] >= threshold and begin - run.end <= self._rule.bridge + 1e-9:
                run.end, run.is_on = end, True
                run.total, run.count = run.total + scores, run.count + 1
            else:
                run.is_on = False
                if end - run.end > self._rule.bridge:  # what follows is too far away
                    yield from self._close(label)
        for label in np.flatnonzero(scores >= self._rule.on).tolist():
            if label not in self._runs:
                self._runs[label] = _Run(begin, end, scores.copy())

    def _close(self, label: int) -> Iterator[ActionSpan]:
        run = self._runs.pop(label)
        if run.end - run.start < self._rule.shortest - 1e-9:
            return
        means = run.total / run.count
        best = np.argsort(-means, kind="stable")[: self._top_k].tolist()
        yield ActionSpan(
            self._source,
            run.start,
            run.end,
            self._labels[label],
            float(means[label]),
            tuple((self._labels[number], float(means[number])) for number in best),
        )

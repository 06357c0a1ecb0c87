"""The options of spans, and how spans are printed."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import click

from vivit_export.cli.options import grouped
from vivit_export.cli.show import PredictionFormat, show_csv, show_text
from vivit_export.errors import UsageError, option
from vivit_export.printing import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vivit_export.contract import Contract
    from vivit_export.runtime.clips.windows import WindowRule
    from vivit_export.runtime.predict import VideoPrediction
    from vivit_export.runtime.spans import ActionSpan, SpanRule
    from vivit_export.runtime.stream import StreamPrediction

_COLUMNS = ("video", "start_seconds", "end_seconds", "rank", "label", "probability")


def _make_rule(
    spans: bool,
    span_on: float | None,
    span_off: float | None,
    span_shortest: float | None,
    span_bridge: float | None,
) -> SpanRule | None:
    from vivit_export.runtime.spans import SpanRule

    given = {"on": span_on, "off": span_off, "shortest": span_shortest, "bridge": span_bridge}
    named = {name: value for name, value in given.items() if value is not None}
    if not spans:
        for name in named:
            raise UsageError(f"{option(f'span_{name}')} is for spans; give {option('spans')} too")
        return None
    if span_off is None and span_on is not None:
        named["off"] = min(SpanRule().off, span_on)
    return SpanRule(**named)


span_options = grouped(
    "spans",
    _make_rule,
    click.option("--spans", is_flag=True, help="Join the windows to spans: what is seen from when to when."),
    click.option(
        "--span-on", type=float, metavar="SCORE", help="A span begins at this score of its label.  [default: 0.5]"
    ),
    click.option("--span-off", type=float, metavar="SCORE", help="It ends below this score.  [default: 0.2]"),
    click.option("--span-shortest", type=float, metavar="SECONDS", help="Drop shorter spans.  [default: 0.8]"),
    click.option(
        "--span-bridge", type=float, metavar="SECONDS", help="Bridge gaps in a span up to this.  [default: 0.8]"
    ),
)


def require_windows(spans: SpanRule | None, form: PredictionFormat, windows: WindowRule | None, one: bool) -> None:
    """Refuse spans without windows, and WebVTT for anything but the spans of one video.

    Raises:
        UsageError: see there.
    """
    if spans is not None and windows is None:
        raise UsageError(f"{option('spans')} joins windows; give {option('window')} too")
    if form == "vtt" and spans is None:
        raise UsageError(f"{option('format', 'vtt')} shows spans; give {option('spans')} too")
    if form == "vtt" and not one:
        raise UsageError(f"{option('format', 'vtt')} is for the captions of one video; give one, or another format")


def require_classes(spans: SpanRule | None, contract: Contract) -> None:
    """Refuse spans of a model that does not classify.

    Raises:
        UsageError: it has no logits, or is a regression.
    """
    if spans is not None and (not contract.labels or contract.task == "regression"):
        raise UsageError(f"{option('spans')}: this bundle does not classify, so there is nothing to tell the time of")


class SpanPrinter:
    """Print spans as they end.

    Args:
        form: as for `PredictionPrinter`, or ``vtt`` for WebVTT.
        top_k: how many labels of a span to print.
        several: whether a table must name the video that spans belong to.
        rule: how windows become spans.
    """

    def __init__(self, form: PredictionFormat, top_k: int, several: bool, rule: SpanRule) -> None:
        from vivit_export.runtime.predict import VideoPrediction
        from vivit_export.runtime.spans import SpanFinder
        from vivit_export.runtime.webvtt import HEADER, InOrder, cue

        self._form, self._top_k, self._several, self._rule = form, top_k, several, rule
        self._make_finder, self._of_a_file = SpanFinder, VideoPrediction
        self._in_order, self._header, self._cue = InOrder(), HEADER, cue
        self._finder: SpanFinder | None = None
        self._key: object = None  # what the finder's windows have in common
        self._named: str | None = None

    def __call__(self, result: VideoPrediction | StreamPrediction) -> None:
        """Add a window."""
        is_first = self._finder is None
        key: object
        if isinstance(result, self._of_a_file):
            key, source = result.path, str(result.path)
        else:
            key, source = result.connection, result.source
        if self._finder is None or key is not self._key:
            self.finish()  # of the last video, or connection
            self._finder, self._key = self._make_finder(source, self._rule, self._top_k), key
        if is_first:
            self._begin()
        if result.span_seconds is not None:
            self._print(self._finder.push(result.span_seconds, result.prediction))

    def finish(self) -> None:
        """Print what is left of the spans of the last video."""
        if self._finder is not None:
            self._print(self._finder.finish())

    def _begin(self) -> None:
        if self._form == "vtt":
            click.echo(self._header, nl=False)
        elif self._form == "csv":
            show_csv([_COLUMNS])

    def _print(self, spans: Iterable[ActionSpan]) -> None:
        found = list(spans)
        if self._form == "vtt":
            since = self._finder.open_since if self._finder is not None else math.inf
            found = list(self._in_order.release(found, since))
        for span in found:
            if self._form == "vtt":
                click.echo(self._cue(span), nl=False)
            elif self._form == "jsonl":
                click.echo(json.dumps(span.to_json()))
            elif self._form == "csv":
                where = (span.source, span.start_seconds, span.end_seconds)
                show_csv([(*where, rank, *entry) for rank, entry in enumerate(span.top, 1)])
            else:
                self._table(span)

    def _table(self, span: ActionSpan) -> None:
        if self._several and span.source != self._named:
            show_text(one_line(span.source))
            self._named = span.source
        label, when = one_line(span.label), f"{span.start_seconds:8.2f} s to {span.end_seconds:8.2f} s"
        show_text(f"{when}   {label} {100 * span.score:.1f} %")

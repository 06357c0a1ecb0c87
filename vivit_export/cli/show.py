"""Print the results of the commands."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vivit_export.cli.color import colored, is_plain
from vivit_export.cli.flags import flag
from vivit_export.errors import UsageError, counted, option, worded
from vivit_export.printing import lines, one_line
from vivit_export.records import JsonObject, to_json

if TYPE_CHECKING:
    from vivit_export.bundle import Bundle
    from vivit_export.bundle.checks import DriftReport
    from vivit_export.deploy.listing import Deployment
    from vivit_export.export.options import ExportPreview
    from vivit_export.export.search_preview import SearchPreview
    from vivit_export.runtime.predict import VideoPrediction
    from vivit_export.runtime.stream import StreamPrediction


def show_json(facts: JsonObject) -> None:
    """Print a result for machines."""
    click.echo(json.dumps(facts, indent=2, sort_keys=True))


def show_csv(rows: Iterable[Sequence[object]]) -> None:
    """Print lines of CSV; see `show_text` for text of others in them."""
    text = io.StringIO()
    cells = ([one_line(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    csv.writer(text, lineterminator="\n").writerows(cells)
    click.echo(text.getvalue(), nl=False)


PredictionFormat = Literal["table", "jsonl", "csv", "vtt"]


def show_text(text: str) -> None:
    """Print a result for people; what others wrote in it is shown, never obeyed by the terminal."""
    shown = lines(text)
    click.echo(shown if is_plain() else colored(shown))


CheckFormat = Literal["text", "json", "junit", "github"]


def show_report(report: DriftReport, form: CheckFormat, bundle: str) -> None:
    """Print the result of a check of a bundle, for people or for continuous integration."""
    from vivit_export.bundle.certainty import certainty_of
    from vivit_export.report.ci import github_text, junit_text
    from vivit_export.report.text import drift_text

    if form == "json":
        certainty = certainty_of(report)
        known = {} if certainty is None else {"certainty": to_json(certainty)}
        show_json({**report.to_json(), **known, "passed": report.passed})
    elif form == "junit":
        click.echo(junit_text(report, bundle))
    elif form == "github":
        click.echo(github_text(report, bundle))
    else:
        show_text(drift_text(report))


def choose_form(form: PredictionFormat | None, as_json: bool, one: bool) -> PredictionFormat:
    """Return the form of predictions: as asked, or by default a table for one video and JSON lines for several.

    Raises:
        UsageError: two different forms are asked for.
    """
    if as_json and form not in (None, "jsonl"):
        raise UsageError(f"{option('json')} is {option('format', 'jsonl')}; leave it out, or {option('format', form)}")
    return form or ("table" if one and not as_json else "jsonl")


class PredictionPrinter:
    """Print predictions as they come, for videos or for windows of videos.

    Args:
        form: ``table`` for people, ``jsonl`` for one JSON object per line, or ``csv`` with one line per label.
        top_k: how many labels to print.
        several: whether a table must name the video that windows belong to.
    """

    def __init__(self, form: PredictionFormat, top_k: int, several: bool) -> None:
        self._form, self._top_k, self._several = form, top_k, several
        self._last: Path | str | None = None

    def __call__(self, result: VideoPrediction | StreamPrediction) -> None:
        """Print one prediction."""
        if self._form == "jsonl":
            click.echo(json.dumps(result.to_json(self._top_k)))
        elif self._form == "csv":
            self._csv(result)
        else:
            self._table(result)
        self._last = result.place

    def _table(self, result: VideoPrediction | StreamPrediction) -> None:
        from vivit_export.report.text import prediction_text

        if self._several and result.span_seconds is not None and result.place is not self._last:
            show_text(one_line(str(result.place)))
        show_text(prediction_text(result, self._top_k))

    def _csv(self, result: VideoPrediction | StreamPrediction) -> None:
        from vivit_export.report.text import prediction_rows

        header, rows = prediction_rows(result, self._top_k)
        show_csv(rows if self._last is not None else [header, *rows])


def show_export(plan: ExportPreview | SearchPreview, as_json: bool) -> None:
    """Print what an export would do."""
    from vivit_export.export.search_preview import SearchPreview

    facts = plan.to_json()
    if as_json:
        show_json(facts)
        return
    if isinstance(plan, SearchPreview):
        show_text(f"would export the fastest precision of {plan.model} inside its gate to {plan.target}")
        show_text(f"  {'tried':<10} {', '.join(plan.plans)}")
        for precision, reason in plan.impossible.items():
            show_text(f"  {'not tried':<10} {precision}: {worded(reason, flag)}")
        return
    show_text(f"would export {plan.model} to {plan.target}")
    for key in ("precision", "attention", "opset", "input", "batches", "check"):
        show_text(f"  {key:<10} {facts[key]}")
    engines = [" ".join([flavour, *(f"SM{sm}" for sm in plan.sms(flavour))]) for flavour in plan.flavours]
    show_text(f"  {'engines':<10} {', '.join(engines) or 'none'}")
    for flavour, reason in plan.skipped.items():
        show_text(f"  {'left out':<10} {flavour}: {reason}")
    if plan.attention_note:
        show_text(f"  {'note':<10} {plan.attention_note}")


def show_bundle(bundle: Bundle, as_json: bool, seconds: dict[str, float] | None = None) -> None:
    """Print what is in a bundle."""
    from vivit_export.report.text import summary_json, summary_text

    if as_json:
        show_json(summary_json(bundle, seconds))
    else:
        show_text(summary_text(bundle))


def show_deployment(deployment: Deployment, as_json: bool) -> None:
    """Print what was deployed."""
    if as_json:
        facts = {"folder": str(deployment.path), "kind": deployment.kind, "model": deployment.model}
        show_json({**facts, "files": to_json(deployment.files)})
        return
    size = f"{deployment.size_bytes / 1e6:.1f} MB, {counted(len(deployment.files), 'files')}"
    show_text(f"{deployment.path}  {size}, hashes verified\n  next       {deployment.readme} has the commands")

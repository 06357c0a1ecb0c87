"""Print the results of the commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from vivit_export.records import JsonObject, to_json

if TYPE_CHECKING:
    from vivit_export.bundle import Bundle
    from vivit_export.deploy.listing import Deployment
    from vivit_export.export.options import ExportPreview
    from vivit_export.runtime.predict import VideoPrediction


def show_json(facts: JsonObject) -> None:
    """Print a result for machines."""
    click.echo(json.dumps(facts, indent=2, sort_keys=True))


def show_prediction(result: VideoPrediction, top_k: int, as_line: bool) -> None:
    """Print the prediction for one video, or for one of its windows."""
    from vivit_export.report.text import prediction_text

    click.echo(json.dumps(result.to_json(top_k)) if as_line else prediction_text(result, top_k))


def show_export(plan: ExportPreview, as_json: bool) -> None:
    """Print what an export would do."""
    facts = plan.to_json()
    if as_json:
        show_json(facts)
        return
    click.echo(f"would export {plan.model} to {plan.target}")
    for key in ("precision", "attention", "opset", "input", "batches", "check"):
        click.echo(f"  {key:<10} {facts[key]}")
    engines = [" ".join([flavour, *(f"SM{sm}" for sm in plan.sms(flavour))]) for flavour in plan.flavours]
    click.echo(f"  {'engines':<10} {', '.join(engines) or 'none'}")
    for flavour, reason in plan.skipped.items():
        click.echo(f"  {'left out':<10} {flavour}: {reason}")


def show_bundle(bundle: Bundle, as_json: bool, seconds: dict[str, float] | None = None) -> None:
    """Print what is in a bundle."""
    from vivit_export.report.text import summary_json, summary_text

    if as_json:
        show_json(summary_json(bundle, seconds))
    else:
        click.echo(summary_text(bundle))


def show_deployment(deployment: Deployment, as_json: bool) -> None:
    """Print what was deployed."""
    if as_json:
        facts = {"folder": str(deployment.path), "kind": deployment.kind, "model": deployment.model}
        show_json({**facts, "files": to_json(deployment.files)})
        return
    size = f"{deployment.size_bytes / 1e6:.1f} MB, {len(deployment.files)} files"
    click.echo(f"{deployment.path}  {size}, hashes verified\n  next       {deployment.readme} has the commands")

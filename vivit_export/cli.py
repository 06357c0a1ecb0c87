"""The command line: parse, call, report. Heavy imports live inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivit_export import __version__
from vivit_export.cli_options import (
    PATH,
    Command,
    batch_options,
    engine_options,
    fixed_shape_options,
    frame_size,
    name_list,
    output_options,
    precision_options,
    take_batches,
    take_precision,
    take_progress,
)

if TYPE_CHECKING:
    from vivit_export.bundle import Bundle
    from vivit_export.export.options import ExportPlan

DEFAULT_MODEL = "google/vivit-b-16x2-kinetics400"
INPUTS = ("crops", "pixels", "frames")
ATTENTIONS = ("auto", "fused-op", "pattern")


@click.command("export", cls=Command)
@click.argument("model", default=DEFAULT_MODEL)
@click.option("-o", "--output", type=PATH, help="Bundle folder to write.  [default: NAME-PRECISION]")
@precision_options
@engine_options
@batch_options
@click.option("--input", "input_mode", type=click.Choice(INPUTS), help="What the graph takes.  [default: crops]")
@click.option(
    "--frame-size", callback=frame_size, metavar="WxH", help="Resize in the graph, from this size; --input frames."
)
@click.option(
    "--outputs", callback=name_list, metavar="LIST", help="logits, embedding or both.  [default: all there are]"
)
@click.option("--attention", type=click.Choice(ATTENTIONS), help="One op, or MatMuls that fuse.  [default: auto]")
@click.option("--no-rewrite", "skip_rewrites", multiple=True, metavar="NAME", help="Leave an exact rewrite out.")
@click.option("--opset", type=int, help="ONNX opset.  [default: the lowest that fits]")
@click.option("--clips", type=PATH, help="Videos to check on.  [default: the bundled clips]")
@click.option("--num-clips", type=int, help="Use at most so many of them.")
@click.option("--gate", metavar="LIMITS", help="Drift limits, e.g. top1=0.99,max=0.02.")
@click.option("--no-check", is_flag=True, help="Do not compare with the eager model.")
@click.option("--revision", help="Hub branch, tag or commit.")
@click.option("--allow-pickle", is_flag=True, help="Also read pytorch_model.bin (a pickle).")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@output_options
@fixed_shape_options
@click.version_option(__version__, prog_name="vivit-export")
def vivit_export(model: str, output: Path | None, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Export MODEL (a hub id, a checkpoint folder, or "demo") into a verified bundle."""
    progress = take_progress(given)
    from vivit_export.export.options import ExportOptions, plan_export

    options = ExportOptions(
        precision=take_precision(given),
        targets=given.pop("targets") or ("auto",),
        batches=take_batches(given),
        check=not given.pop("no_check"),
        **{name: value for name, value in given.items() if value is not None},
    )
    plan = plan_export(model, output, options)
    if dry_run:
        _show_plan(plan, as_json)
        return
    from vivit_export.export.pipeline import export_model  # torch takes seconds to load: after the mistakes

    bundle = export_model(model, output, options=options, progress=progress)
    _show_bundle(bundle, as_json, seconds=progress.seconds)


@click.group()
@click.version_option(__version__, prog_name="vivit")
def vivit() -> None:
    """Export, build and inspect ViViT bundles."""


vivit.add_command(vivit_export, "export")


@vivit.command(cls=Command)
@click.argument("bundle", type=PATH)
@engine_options
@batch_options
@output_options
def build(bundle: Path, targets: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Add engines for this machine to BUNDLE; needs no torch."""
    progress = take_progress(given)
    from vivit_export.export.build import build_engines

    built = build_engines(bundle, targets or ("auto",), batches=take_batches(given), progress=progress, **given)
    _show_bundle(built, as_json, seconds=progress.seconds)


@vivit.command(cls=Command)
@click.argument("bundle", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Verify BUNDLE and show what it holds."""
    from vivit_export.bundle import read_bundle

    _show_bundle(read_bundle(bundle), as_json)


def _show_plan(plan: ExportPlan, as_json: bool) -> None:
    facts = plan.to_json()
    if as_json:
        click.echo(json.dumps(facts, indent=2, sort_keys=True))
        return
    click.echo(f"would export {plan.model} to {plan.target}")
    for key in ("precision", "attention", "opset", "input", "batches", "check"):
        click.echo(f"  {key:<10} {facts[key]}")
    engines = [" ".join([flavour, *(f"SM{sm}" for sm in plan.sms(flavour))]) for flavour in plan.flavours]
    click.echo(f"  {'engines':<10} {', '.join(engines) or 'none'}")
    for flavour, reason in plan.skipped.items():
        click.echo(f"  {'left out':<10} {flavour}: {reason}")


def _show_bundle(bundle: Bundle, as_json: bool, seconds: dict[str, float] | None = None) -> None:
    from vivit_export.summary import summary_json, summary_text

    if as_json:
        click.echo(json.dumps(summary_json(bundle, seconds), indent=2, sort_keys=True))
    else:
        click.echo(summary_text(bundle))

"""The commands that turn a checkpoint into a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import click

from vivit_export import __version__
from vivit_export.choices import AUTO, AttentionForm, Decode
from vivit_export.cli.cluster import RayPlace, ray_place_options
from vivit_export.cli.command import Command
from vivit_export.cli.options import (
    SamplingChoice,
    calibration_options,
    engine_options,
    fixed_shape_options,
    force_option,
    fp8_attention_option,
    grouped,
    hub_options,
    output_options,
    precision_options,
    reading_options,
    rewrite_options,
    sampling_options,
    target_options,
)
from vivit_export.cli.show import show_bundle, show_export, show_json, show_text
from vivit_export.cli.values import BUNDLE, FILE, PATH, frame_size, name_list
from vivit_export.contract import InputMode
from vivit_export.precision import Precision

if TYPE_CHECKING:
    from vivit_export.calibration.options import CalibrationOptions
    from vivit_export.export.engine.options import EngineOptions
    from vivit_export.export.options import Attention
    from vivit_export.progress import Silent


DEFAULT_MODEL = "google/vivit-b-16x2-kinetics400"


class KeepChoice(NamedTuple):
    """What to keep in a wider type; each field has the name of that of `ExportOptions`."""

    keep_fp16: str | None
    keep_fp32: str | None
    fix: bool


keep_options = grouped(
    "keep",
    KeepChoice,
    click.option(
        "--keep-fp16", metavar="REGEX", help="Layers to keep in fp16. auto: as few as possible while meeting the gate."
    ),
    click.option("--keep-fp32", metavar="REGEX", help="Nodes of the graph to keep in fp32, by their names."),
    click.option(
        "--fix",
        is_flag=True,
        help="Beyond the gate, keep the fewest layers in a wider type that meet it.",
    ),
)


@click.command(
    "export",
    cls=Command,
    examples=(
        "vivit-export demo --fp16 -o out/demo",
        "vivit-export path/to/checkpoint --fp16 --clips path/to/videos --gate top1=0.99",
        "vivit-export path/to/checkpoint --int8 --calibration-data path/to/videos --fix",
        "vivit-export path/to/checkpoint --precision auto --calibration-data path/to/videos",
        "vivit-export demo --fp16 --target onnx --target tensorrt-rtx --sm 89",
    ),
)
@click.argument("model", default=DEFAULT_MODEL)
@click.option("-o", "--output", type=PATH, help="Folder to write the bundle to.  [default: NAME-PRECISION]")
@precision_options(Precision.FP32, search=True)
@target_options
@engine_options
@force_option
@click.option(
    "--input",
    "input_mode",
    type=click.Choice(get_args(InputMode)),
    default="crops",
    show_default=True,
    help="Input of the graph: crops or whole frames (uint8), or preprocessed pixels (float32).",
)
@click.option(
    "--frame-size",
    callback=frame_size,
    metavar="WxH",
    help="Size of the frames that --input frames takes; the graph resizes them.",
)
@click.option(
    "--outputs",
    callback=name_list,
    metavar="LIST",
    help="logits, embedding or both.  [default: all that the model has]",
)
@sampling_options
@click.option(
    "--attention",
    type=click.Choice(("auto", *get_args(AttentionForm))),
    default="auto",
    show_default=True,
    help="Attention as one op, or as MatMuls that compilers fuse.",
)
@rewrite_options
@click.option("--opset", type=int, help="ONNX opset.  [default: the lowest that has the ops needed]")
@click.option("--clips", type=PATH, help="Videos to check drift on.  [default: the bundled clips]")
@click.option("--num-clips", type=int, help="Check on at most this many clips.")
@click.option("--gate", metavar="LIMITS", help="Drift limits, e.g. top1=0.99,max=0.02.")
@click.option("--no-check", is_flag=True, help="Skip the comparison with the eager model.")
@calibration_options
@fp8_attention_option
@click.option("--ranges", type=FILE, help="ranges.json from an earlier calibration of this model.")
@keep_options
@hub_options
@click.option("--sbom", is_flag=True, help="Add a bill of materials (CycloneDX): files, weights and packages.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@output_options
@fixed_shape_options
@click.version_option(__version__, prog_name="vivit-export")
def vivit_export(
    model: str,
    output: Path | None,
    precision: Precision | Literal["auto"] | None,
    targets: tuple[str, ...],
    engine: EngineOptions,
    force: bool,
    input_mode: InputMode,
    frame_size: tuple[int, int] | None,
    outputs: tuple[str, ...],
    sampling: SamplingChoice,
    attention: Attention,
    skip_rewrites: tuple[str, ...],
    opset: int | None,
    clips: Path | None,
    num_clips: int | None,
    gate: str | None,
    no_check: bool,
    calibration: CalibrationOptions,
    fp8_attention: bool,
    ranges: Path | None,
    keep: KeepChoice,
    revision: str | None,
    allow_pickle: bool,
    sbom: bool,
    dry_run: bool,
    as_json: bool,
    progress: Silent,
) -> None:
    """Export MODEL (a hub id, a checkpoint folder, or "demo") to a verified bundle."""
    from vivit_export.export.fields import ExportFields
    from vivit_export.export.options import ExportOptions, loosest, preview_export
    from vivit_export.export.search_preview import preview_search

    search = precision == AUTO
    options = ExportOptions(
        loosest(fp8_attention) if precision == AUTO else precision or Precision.FP32,
        targets,
        **dataclasses.asdict(engine),
        input_mode=input_mode,
        frame_size=frame_size,
        **sampling._asdict(),
        outputs=outputs,
        attention=attention,
        skip_rewrites=skip_rewrites,
        opset=opset,
        clips=clips,
        num_clips=num_clips,
        check=not no_check,
        gate=gate,
        force=force,
        allow_pickle=allow_pickle,
        revision=revision,
        calibration=dataclasses.replace(calibration, ranges=ranges),
        **keep._asdict(),
        fp8_attention=fp8_attention,
        sbom=sbom,
    )
    plan = (preview_search if search else preview_export)(model, output, options)
    if dry_run:
        show_export(plan, as_json)
        return
    from vivit_export.export.pipeline import export_model  # torch takes seconds to load: after the mistakes

    fields: ExportFields = {"precision": AUTO} if search else {}
    made = export_model(model, output, options=options, progress=progress, **fields)
    show_bundle(made, as_json, seconds=progress.seconds)


@click.command(
    cls=Command,
    interrupted="no ranges were written; run the same command again to continue",
    examples=(
        "vivit calibrate path/to/checkpoint --calibration-data path/to/videos -o ranges.json",
        "vivit calibrate path/to/checkpoint --fp8 --calibration-data clips.csv --sensitivity",
    ),
)
@click.argument("model", default=DEFAULT_MODEL)
@click.option("-o", "--output", type=FILE, default=Path("ranges.json"), show_default=True, help="File to write.")
@precision_options(Precision.INT8)
@calibration_options
@reading_options
@fp8_attention_option
@sampling_options
@click.option("--sensitivity", is_flag=True, help="Also measure how quantizing each layer changes the logits.")
@rewrite_options
@hub_options
@ray_place_options
@force_option
@output_options
def calibrate(
    model: str,
    output: Path,
    precision: Precision | None,
    calibration: CalibrationOptions,
    decode: Decode,
    readers: int | None,
    fp8_attention: bool,
    sampling: SamplingChoice,
    sensitivity: bool,
    skip_rewrites: tuple[str, ...],
    revision: str | None,
    allow_pickle: bool,
    cluster: RayPlace,
    force: bool,
    as_json: bool,
    progress: Silent,
) -> None:
    """Find the INT8 or FP8 ranges of MODEL on real clips, for use with --ranges."""
    from vivit_export.export.checkpoint.preview import preview_checkpoint
    from vivit_export.export.options import ExportOptions

    calibration = dataclasses.replace(calibration, decode=decode, readers=readers)
    options = ExportOptions(
        precision or Precision.INT8,
        calibration=calibration,
        fp8_attention=fp8_attention,
        **sampling._asdict(),
        skip_rewrites=skip_rewrites,
        revision=revision,
        allow_pickle=allow_pickle,
        force=force,
    )
    calibration.require_data(model)
    observing = cluster.observing(progress)
    preview_checkpoint(model, revision=revision, allow_pickle=allow_pickle)
    from vivit_export.export.calibration_run import calibrate_model  # torch takes seconds to load: after the mistakes

    ranges = calibrate_model(
        model, output, options=options, sensitivity=sensitivity, progress=progress, observing=observing
    )
    if as_json:
        show_json(ranges.to_json())
    else:
        from vivit_export.report.text import ranges_text

        show_text(ranges_text(ranges, output))


@click.command(
    cls=Command,
    examples=("vivit build out/demo", "vivit build out/demo --target tensorrt --opt-batch 8 --max-batch 16"),
)
@click.argument("bundle", type=BUNDLE)
@target_options
@engine_options
@force_option
@output_options
def build(
    bundle: Path, targets: tuple[str, ...], engine: EngineOptions, force: bool, as_json: bool, progress: Silent
) -> None:
    """Build engines for this machine and add them to BUNDLE; needs no torch."""
    from vivit_export.export.build import build_engines

    built = build_engines(bundle, targets, **dataclasses.asdict(engine), force=force, progress=progress)
    show_bundle(built, as_json, seconds=progress.seconds)

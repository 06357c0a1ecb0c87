"""The command line: parse, call, report. Heavy imports live inside the commands."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivit_export import __version__
from vivit_export.cli_options import (
    FILE,
    PATH,
    SOURCE,
    Command,
    batch_options,
    calibration_options,
    engine_options,
    fixed_shape_options,
    frame_size,
    int_list,
    length,
    name_list,
    output_options,
    precision_options,
    sampling_options,
    session_options,
    take_batches,
    take_calibration,
    take_precision,
    take_progress,
    take_sampling,
)
from vivit_export.errors import UsageError

if TYPE_CHECKING:
    from vivit_export.bundle import Bundle
    from vivit_export.deploy.listing import Deployment
    from vivit_export.export.options import ExportPlan
    from vivit_export.runtime.predict import VideoPrediction

DEFAULT_MODEL = "google/vivit-b-16x2-kinetics400"
INPUTS = ("crops", "pixels", "frames")
ATTENTIONS = ("auto", "fused-op", "pattern")
TRITON_BACKENDS = ("auto", "tensorrt", "onnxruntime", "onnxruntime-tensorrt")


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
@sampling_options
@click.option("--attention", type=click.Choice(ATTENTIONS), help="One op, or MatMuls that fuse.  [default: auto]")
@click.option("--no-rewrite", "skip_rewrites", multiple=True, metavar="NAME", help="Leave an exact rewrite out.")
@click.option("--opset", type=int, help="ONNX opset.  [default: the lowest that fits]")
@click.option("--clips", type=PATH, help="Videos to check on.  [default: the bundled clips]")
@click.option("--num-clips", type=int, help="Use at most so many of them.")
@click.option("--gate", metavar="LIMITS", help="Drift limits, e.g. top1=0.99,max=0.02.")
@click.option("--no-check", is_flag=True, help="Do not compare with the eager model.")
@calibration_options
@click.option("--ranges", type=FILE, help="ranges.json of an earlier calibration of this model.")
@click.option("--keep-fp16", metavar="REGEX", help="Layers left out of INT8 or FP8; auto: as few as the gate needs.")
@click.option("--revision", help="Hub branch, tag or commit.")
@click.option("--allow-pickle", is_flag=True, help="Also read pytorch_model.bin (a pickle).")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@output_options
@fixed_shape_options
@click.version_option(__version__, prog_name="vivit-export")
def vivit_export(model: str, output: Path | None, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Export MODEL (a hub id, a checkpoint folder, or "demo") into a verified bundle."""
    progress = take_progress(given)
    from vivit_export.calibration.options import CalibrationOptions
    from vivit_export.export.options import ExportOptions, plan_export

    calibration = CalibrationOptions(**take_calibration(given), ranges=given.pop("ranges"))
    options = ExportOptions(
        calibration=calibration,
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
    """Export, build, check and run ViViT bundles."""


vivit.add_command(vivit_export, "export")


@vivit.command(cls=Command)
@click.argument("model", default=DEFAULT_MODEL)
@click.option("-o", "--output", type=FILE, default=Path("ranges.json"), show_default=True, help="File to write.")
@precision_options
@calibration_options
@sampling_options
@click.option("--sensitivity", is_flag=True, help="Measure what each layer does to the logits.")
@click.option("--no-rewrite", "skip_rewrites", multiple=True, metavar="NAME", help="As the export will have it.")
@click.option("--revision", help="Hub branch, tag or commit.")
@click.option("--allow-pickle", is_flag=True, help="Also read pytorch_model.bin (a pickle).")
@click.option("--force", is_flag=True, help="Replace the file.")
@output_options
def calibrate(model: str, output: Path, sensitivity: bool, as_json: bool, **given: Any) -> None:
    """Find the INT8 (or FP8) ranges of MODEL on real clips, for exports with --ranges."""
    progress = take_progress(given)
    from vivit_export.calibration.options import CalibrationOptions
    from vivit_export.export.options import ExportOptions

    calibration = CalibrationOptions(**take_calibration(given))
    precision = take_precision(given, default="int8")
    options = ExportOptions(
        precision=precision, calibration=calibration, **{n: value for n, value in given.items() if value is not None}
    )
    calibration.require_data(model)
    from vivit_export.export.calibration_run import calibrate_model

    ranges = calibrate_model(model, output, options=options, sensitivity=sensitivity, progress=progress)
    from vivit_export.report.text import ranges_text

    click.echo(json.dumps(ranges.to_json(), indent=2, sort_keys=True) if as_json else ranges_text(ranges, output))


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
@click.option("--json", "as_json", is_flag=True, help="Print the manifest and all layers of the plans as JSON.")
@click.option("--plan-onnx", type=FILE, help="Write the compiled plan as an ONNX file, to look at in Netron.")
@click.option("--engine", help="Engine whose plan that is.  [default: the only one]")
def inspect(bundle: Path, as_json: bool, plan_onnx: Path | None, engine: str | None) -> None:
    """Verify BUNDLE and show what it holds, with the plan of each engine."""
    from vivit_export.bundle import read_bundle
    from vivit_export.export.engine.table import choose_engine, plan_text, read_plan
    from vivit_export.report.text import summary_json, summary_text

    if engine is not None and plan_onnx is None:
        raise UsageError("--engine chooses the plan that --plan-onnx writes; give both")
    found = read_bundle(bundle)
    plans = {name: read_plan(found, name) for name in found.engines}
    if plan_onnx is not None:
        from vivit_export.export.engine.drawing import write_plan_onnx

        chosen = choose_engine(found, engine)
        write_plan_onnx(plans[chosen].layers, chosen, plan_onnx)
    if as_json:
        content = {**summary_json(found, None), "plans": {name: plan.to_json() for name, plan in plans.items()}}
        click.echo(json.dumps(content, indent=2, sort_keys=True))
    else:
        click.echo("\n".join([summary_text(found), *map(plan_text, plans.values())]))


@vivit.command(cls=Command)
@click.argument("bundle", type=SOURCE)
@click.argument("videos", nargs=-1, required=True, type=PATH, metavar="VIDEO...")
@session_options
@sampling_options
@click.option(
    "--window", callback=length, metavar="LENGTH", help="Predict sliding windows: 2.5 (seconds), 64f (frames)."
)
@click.option("--hop", callback=length, metavar="LENGTH", help="From one window to the next.  [default: --window]")
@click.option("--labels", type=FILE, help="Names of the logits: one per line, or JSON.")
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(min=1), help="Show so many labels.")
@click.option("--embedding", type=FILE, help="Also write the embeddings, as safetensors.")
@output_options
def predict(bundle: Path | str, videos: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Name what happens in each VIDEO (or folder of videos); needs no torch.

    BUNDLE may also be a model that Triton serves: triton://HOST:PORT/MODEL, or triton+http:// for HTTP. To a MODEL
    that takes videos (NAME-video) the files themselves are sent.
    One video is shown as a table, several as JSON lines. Videos that cannot be used are listed at the
    end; the others are still predicted.
    """
    progress, sampling, top_k = take_progress(given), take_sampling(given), given.pop("top_k")
    from vivit_export.errors import ClipError
    from vivit_export.runtime import predict as run

    windows = run.window_rule(given.pop("window"), given.pop("hop"), sampling["views"])
    embeddings, files = given.pop("embedding"), run.list_videos(videos)
    source, own_contract = run.read_source(bundle, progress)
    contract = run.adapt_contract(own_contract, labels=given.pop("labels"), **sampling)
    run.require_outputs(contract, embeddings)
    as_lines = as_json or len(files) > 1 or videos[0].is_dir()
    kept: list[run.VideoPrediction] = []
    faults: list[run.VideoFault] = []
    running = run.predict_bundle(source, files, contract=contract, windows=windows, progress=progress, **given)
    with closing(running) as results:
        for result in results:
            if isinstance(result, run.VideoFault):
                faults.append(result)
                continue
            kept.append(result)
            _show_prediction(result, top_k, as_lines)
    if embeddings is not None and kept:
        run.save_embeddings(embeddings, kept)
    if faults:
        raise ClipError(run.describe_faults(faults, len(files)))


@vivit.command(cls=Command)
@click.argument("bundle", type=PATH)
@session_options
@click.option("--against", type=click.Choice(("golden", "eager")), help="What to compare with.  [default: golden]")
@click.option("--clips", type=PATH, help="Videos to check on, against eager.")
@click.option("--num-clips", type=int, help="Use at most so many clips.")
@click.option("--checkpoint", metavar="MODEL", help="What BUNDLE was exported from, for eager.")
@click.option("--gate", metavar="LIMITS", help="Drift limits, e.g. top1=0.99,max=0.02.  [default: the bundle's]")
@click.option("--per-block", is_flag=True, help="Also show the drift behind each encoder block.")
@output_options
def check(bundle: Path, as_json: bool, **given: Any) -> None:
    """Measure the drift of BUNDLE where it is served; exit 5 beyond the gate.

    Against the golden results in the bundle (needs no torch), or against the eager model.
    """
    progress = take_progress(given)
    from vivit_export.export.recheck import check as run
    from vivit_export.report.text import drift_text

    report = run(bundle, progress=progress, **given)
    if as_json:
        click.echo(json.dumps({**report.to_json(), "passed": report.passed}, indent=2, sort_keys=True))
    else:
        click.echo(drift_text(report))
    report.require()


@vivit.command(cls=Command)
@click.argument("bundle", type=PATH)
@click.option("--engine", "engines", multiple=True, metavar="NAME", help="Repeatable.  [default: all that run here]")
@click.option("--against", multiple=True, metavar="KIND", help="eager, sdpa or compile, also with -fp16 or -bf16.")
@click.option("--checkpoint", metavar="MODEL", help="What BUNDLE was exported from, for --against.")
@click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N.  [default: the first GPU, else the CPU]")
@click.option("--cpu-precision", type=click.Choice(("fp32", "bf16")), help="Arithmetic of CPU engines.  [fp32]")
@click.option("--batch", "batches", callback=int_list, default="1", show_default=True, metavar="LIST", help="As 1,4,8.")
@click.option("--rounds", type=int, default=10, show_default=True, help="Timed calls of each.")
@click.option("--warmup", type=int, default=2, show_default=True, help="Calls before these.")
@click.option("--video", type=FILE, help="For the steps from a file to a result.  [default: a bundled one]")
@click.option("--anyway", is_flag=True, help="Also time what is beyond its drift gate.")
@click.option("--save", is_flag=True, help="Add the result to BUNDLE and its report.html.")
@output_options
def bench(bundle: Path, as_json: bool, save: bool, **given: Any) -> None:
    """Time the engines of BUNDLE that run here, in turns, and eager PyTorch beside them."""
    progress = take_progress(given)
    from vivit_export.bundle import read_bundle
    from vivit_export.demo import clips_path
    from vivit_export.export.amend import amend
    from vivit_export.export.bench import bench as run
    from vivit_export.report.text import bench_text

    source = read_bundle(bundle)
    if given["video"] is None and source.contract.io.mode != "frames":
        given["video"] = next(clips_path().glob("left*"))
    report = run(source, progress=progress, **given)
    facts = report.to_json()
    if save and not report.interrupted:
        amend(source, lambda _work, content: content.update(bench=facts), progress)
    click.echo(json.dumps(facts, indent=2, sort_keys=True) if as_json else bench_text(facts))
    if report.interrupted:
        raise KeyboardInterrupt


def _show_prediction(result: VideoPrediction, top_k: int, as_line: bool) -> None:
    from vivit_export.report.text import prediction_text

    click.echo(json.dumps(result.to_json(top_k)) if as_line else prediction_text(result, top_k))


@vivit.group()
def deploy() -> None:
    """Write what another program needs to run a bundle."""


@deploy.command("cpp", cls=Command)
@click.argument("bundle", type=PATH)
@click.argument("target", metavar="DIR", type=PATH)
@click.option("--force", is_flag=True, help="Replace a deployment that exists.")
@output_options
def deploy_cpp(bundle: Path, target: Path, force: bool, as_json: bool, **given: Any) -> None:
    """Write DIR: a CMake project with BUNDLE, a C++17 library that runs it, and an example."""
    progress = take_progress(given)
    from vivit_export.deploy.cpp.deploy import deploy_cpp

    _show_deployment(deploy_cpp(bundle, target, force=force, progress=progress), as_json)


@deploy.command("triton", cls=Command)
@click.argument("bundle", type=PATH)
@click.argument("target", metavar="REPO", type=PATH)
@click.option("--name", metavar="NAME", help="Of the model.  [default: the last part of the model's id]")
@click.option(
    "--backend", type=click.Choice(TRITON_BACKENDS), default="auto", show_default=True,
    help="What runs it; auto: TensorRT where BUNDLE has such an engine.",
)  # fmt: skip
@click.option("--instances", type=int, metavar="K", help="Copies of the engine on each GPU.  [default: 1]")
@click.option(
    "--max-delay-us", "delay_us", type=int, metavar="D", help="Wait so long to fill a batch.  [default: see above]"
)
@click.option("--labels", type=FILE, help="Names of the logits: one per line, or JSON.")
@click.option("--ensemble", is_flag=True, help="Also serve NAME-video, which takes encoded videos.")
@sampling_options
@click.option("--force", is_flag=True, help="Replace a model of that name that was deployed before.")
@output_options
def deploy_triton(bundle: Path, target: Path, force: bool, as_json: bool, **given: Any) -> None:
    """Write BUNDLE as a model to REPO, a model repository of Triton Inference Server.

    A repository that is there keeps its other models, and --force replaces only the one of that name.
    A request waits for others to share its batch: a tenth of what one clip takes where vivit bench --save has
    measured that, else 1000 µs, or --max-delay-us.
    """
    progress, backend, sampling = take_progress(given), given.pop("backend"), take_sampling(given)
    from vivit_export.bundle import read_bundle
    from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
    from vivit_export.runtime.predict import adapt_contract

    own = read_bundle(bundle, verify=False).contract  # the files are verified when it is deployed
    contract = adapt_contract(own, labels=given.pop("labels"), **sampling)
    options = TritonOptions(backend=None if backend == "auto" else backend, contract=contract, **given)
    _show_deployment(deploy_triton(bundle, target, options, force=force, progress=progress), as_json)


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
    from vivit_export.report.text import summary_json, summary_text

    if as_json:
        click.echo(json.dumps(summary_json(bundle, seconds), indent=2, sort_keys=True))
    else:
        click.echo(summary_text(bundle))


def _show_deployment(deployment: Deployment, as_json: bool) -> None:
    if as_json:
        facts = {"folder": str(deployment.path), "kind": deployment.kind, "model": deployment.model}
        click.echo(json.dumps({**facts, "files": deployment.files}, indent=2, sort_keys=True))
        return
    size = f"{deployment.size_bytes / 1e6:.1f} MB, {len(deployment.files)} files"
    click.echo(f"{deployment.path}  {size}, hashes verified\n  next       {deployment.readme} has the commands")

"""The commands that inspect, run, check and time a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
from click.core import ParameterSource

from vivit_export.choices import Against, CpuPrecision, Decode
from vivit_export.cli.cluster import NOT_ON_RAY, Asked, RayChoice, predict_on_ray, ray_options
from vivit_export.cli.live import LiveChoice, live_options, live_source
from vivit_export.cli.options import (
    Command,
    SamplingChoice,
    device_options,
    output_options,
    reading_options,
    sampling_options,
    self_test_option,
    session_options,
    signature_options,
)
from vivit_export.cli.predictions import Work, predict_files, predict_live
from vivit_export.cli.show import (
    CheckFormat,
    PredictionFormat,
    PredictionPrinter,
    choose_form,
    show_json,
    show_report,
    show_text,
)
from vivit_export.cli.spans import SpanPrinter, require_classes, require_windows, span_options
from vivit_export.cli.values import FILE, PATH, SOURCE, VIDEO, int_list, length
from vivit_export.errors import UsageError, option
from vivit_export.printing import one_line

if TYPE_CHECKING:
    from vivit_export.progress import Silent
    from vivit_export.runtime.clips.windows import Unit
    from vivit_export.runtime.spans import SpanRule


@click.command(cls=Command)
@click.argument("bundle", type=PATH)
@click.option("--plan-onnx", type=FILE, help="Write the plan as an ONNX file, to view in Netron.")
@click.option("--engine", help="Engine whose plan to write.  [default: the only one]")
@click.option("--force", is_flag=True, help="Replace the file of --plan-onnx if it exists.")
@output_options
def inspect(
    bundle: Path, plan_onnx: Path | None, engine: str | None, force: bool, as_json: bool, progress: Silent
) -> None:
    """Verify BUNDLE and show its contents: labels, drift, saved timings, signature, and the plan of each engine.

    --json prints the whole manifest and every layer of the plans.
    """
    from vivit_export.bundle import read_bundle
    from vivit_export.bundle.signatures.verify import signature_text
    from vivit_export.export.engine.table import choose_engine, plan_text, read_plan
    from vivit_export.report.text import contents_text, summary_json, summary_text

    if engine is not None and plan_onnx is None:
        raise UsageError(f"{option('engine')} chooses the plan that {option('plan_onnx')} writes; give both")
    if force and plan_onnx is None:
        raise UsageError(f"{option('force')} replaces the file that {option('plan_onnx')} writes; give both")
    with progress.stage("verify the bundle"):
        found = read_bundle(bundle)
    plans = {name: read_plan(found, name) for name in found.engines}
    if plan_onnx is not None:
        from vivit_export.export.engine.drawing import write_plan_onnx

        chosen = choose_engine(found, engine)
        write_plan_onnx(plans[chosen].layers, chosen, plan_onnx, force=force)
    if as_json:
        content = {
            **summary_json(found, None),
            "signature": signature_text(found),
            "plans": {name: plan.to_json() for name, plan in plans.items()},
        }
        show_json(content)
    else:
        signed = f"  signature  {one_line(signature_text(found) or 'none')}"
        show_text("\n".join([summary_text(found), *contents_text(found), signed, *map(plan_text, plans.values())]))


@click.command(cls=Command)
@click.argument("bundle", type=SOURCE)
@click.argument("videos", nargs=-1, required=True, type=VIDEO, metavar="VIDEO...")
@session_options
@self_test_option
@sampling_options
@click.option(
    "--window",
    callback=length,
    metavar="LENGTH",
    help="Predict sliding windows of this length: 2.5 (seconds) or 64f (frames).",
)
@click.option("--hop", callback=length, metavar="LENGTH", help="Distance between windows.  [default: --window]")
@click.option("--labels", type=FILE, help="File with the label of each logit: one per line, or JSON.")
@reading_options
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(min=1), help="Show this many labels.")
@click.option("--embedding", type=FILE, help="Also write the embeddings to this safetensors file.")
@click.option("--force", is_flag=True, help="Replace the file of --embedding if it exists.")
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(PredictionFormat)),
    help="Table, JSON lines, CSV (a line per label) or WebVTT (spans).  [default: table for one video, else jsonl]",
)
@span_options
@live_options
@ray_options
@signature_options
@output_options
def predict(
    bundle: Path | str,
    videos: tuple[Path | str, ...],
    engine: str | None,
    device: str | None,
    cpu_precision: CpuPrecision | None,
    no_self_test: bool,
    sampling: SamplingChoice,
    window: tuple[float, Unit] | None,
    hop: tuple[float, Unit] | None,
    labels: Path | None,
    top_k: int,
    embedding: Path | None,
    force: bool,
    decode: Decode,
    readers: int | None,
    form: PredictionFormat | None,
    spans: SpanRule | None,
    live: LiveChoice,
    cluster: RayChoice,
    require_signature: tuple[Path, ...],
    identity: str | None,
    as_json: bool,
    progress: Silent,
) -> None:
    """Classify each VIDEO (or every video in a folder); needs no torch.

    BUNDLE may also be a model served by Triton: triton://HOST:PORT/MODEL, or triton+http:// for HTTP; with TLS,
    triton+grpcs:// or triton+https://. If MODEL accepts videos (NAME-video), the files themselves are sent.
    Unusable videos are listed at the end; the others are still predicted. --json is --format jsonl.

    One VIDEO may be live: rtsp://, rtsps://, http://, https://, udp:// or tcp:// and the rest of an address,
    /dev/videoN, or - for standard input. It needs --window, and prints a line per window as it comes.

    With --ray, VIDEO may also be a list of paths (.txt, .csv, .tsv, .parquet) or webdataset shards (.tar).
    """
    if cluster.ray is not None:
        _refuse_given(f"is for a run in this process; leave it out with {option('ray')}", only=NOT_ON_RAY)
        run_of = (engine, device, cpu_precision, not no_self_test, decode, readers, top_k, require_signature, identity)
        predict_on_ray(cluster, Asked(bundle, videos, sampling, window, hop, labels, *run_of), as_json, progress)
        return
    cluster.refuse_without_ray()
    from vivit_export.runtime import predict as run
    from vivit_export.runtime.embeddings import files_of, require_outputs
    from vivit_export.runtime.listing import ListedVideos, list_videos

    address = live_source(videos)
    if address is not None:
        _refuse_given("is for files; leave it out for live video", only=("decode", "readers"))
    else:
        live.refuse_for_files()
    windows = run.window_rule(window, hop, sampling.views)
    one = len(videos) == 1 and not os.path.isdir(videos[0])
    chosen = choose_form(form, as_json, one=one and address is None)
    require_windows(spans, chosen, windows, one)
    found = (
        list_videos([v for v in videos if isinstance(v, Path)], progress.note) if address is None else ListedVideos(())
    )
    source, own_contract = run.read_source(bundle, progress, require_signature or None, identity)
    contract = run.adapt_contract(own_contract, labels=labels, **sampling._asdict())
    require_classes(spans, contract)
    inputs = [*found.files, *([labels] if labels else []), *files_of(source)]
    require_outputs(contract, embedding, force=force, inputs=inputs)
    several = len(found.files) > 1
    show = SpanPrinter(chosen, top_k, several, spans) if spans else PredictionPrinter(chosen, top_k, several)
    on = (engine, device, cpu_precision)
    work = Work(source, contract, windows, *on, show, embedding, force, not no_self_test, progress)
    if address is None:
        predict_files(work, found, decode, readers)
    else:
        predict_live(work, address, live)


@click.command(cls=Command)
@click.argument("bundle", type=PATH)
@session_options
@click.option(
    "--against",
    type=click.Choice(get_args(Against)),
    help="Compare with the golden clips or the eager model.  [default: golden]",
)
@click.option("--clips", type=PATH, help="Videos to check on; compares with the eager model.")
@click.option("--num-clips", type=int, help="Check on at most this many clips.")
@click.option("--checkpoint", metavar="MODEL", help="Checkpoint that BUNDLE was exported from, for the eager model.")
@click.option("--gate", metavar="LIMITS", help="Drift limits, e.g. top1=0.99,max=0.02.  [default: the bundle's]")
@click.option("--labels", type=FILE, help="File with a clip and its label in each line: how often both are right.")
@click.option("--per-block", is_flag=True, help="Also show where drift begins, from the embeddings to the logits.")
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(CheckFormat)),
    help="How to print the result; junit and github are for continuous integration.  [default: text]",
)
@reading_options
@signature_options
@output_options
def check(
    bundle: Path,
    engine: str | None,
    device: str | None,
    cpu_precision: CpuPrecision | None,
    against: Against | None,
    clips: Path | None,
    num_clips: int | None,
    checkpoint: str | None,
    gate: str | None,
    labels: Path | None,
    per_block: bool,
    form: CheckFormat | None,
    decode: Decode,
    readers: int | None,
    require_signature: tuple[Path, ...],
    identity: str | None,
    as_json: bool,
    progress: Silent,
) -> None:
    """Measure the drift of BUNDLE on this machine; exit with 5 if it is beyond the gate.

    Compares with the golden clips in the bundle (needs no torch), or with the eager model. --json is --format json.
    """
    from vivit_export.export.recheck import check as run

    if as_json and form not in (None, "json"):
        raise UsageError(f"{option('json')} is {option('format', 'json')}; leave it out, or {option('format', form)}")
    report = run(
        bundle,
        clips,
        against=against,
        checkpoint=checkpoint,
        num_clips=num_clips,
        gate=gate,
        labels=labels,
        per_block=per_block,
        decode=decode,
        readers=readers,
        engine=engine,
        device=device,
        cpu_precision=cpu_precision,
        require_signature=require_signature or None,
        identity=identity,
        progress=progress,
    )
    show_report(report, form or ("json" if as_json else "text"), str(bundle))
    report.require()


@click.command(cls=Command)
@click.argument("bundle", type=SOURCE)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME",
    help="Engine to time. Repeatable.  [default: all that run on this machine]",
)
@click.option(
    "--against",
    multiple=True,
    metavar="KIND",
    help="PyTorch mode to time too: eager, sdpa or compile, or one with -fp16 or -bf16.",
)
@click.option("--checkpoint", metavar="MODEL", help="Checkpoint that BUNDLE was exported from, for --against.")
@device_options
@click.option(
    "--batch",
    "batches",
    callback=int_list,
    default="1",
    show_default=True,
    metavar="LIST",
    help="Batch sizes, such as 1,4,8.",
)
@click.option("--rounds", type=int, default=10, show_default=True, help="Timed calls of each contender.")
@click.option("--warmup", type=int, default=2, show_default=True, help="Calls before the timed ones.")
@click.option("--video", type=FILE, help="Video for timing the steps from file to result.  [default: a bundled one]")
@click.option("--anyway", is_flag=True, help="Also time engines that are beyond their drift gate.")
@click.option("--save", is_flag=True, help="Add the result to BUNDLE and its report.")
@click.option(
    "--in-flight",
    callback=int_list,
    default="1,8,32",
    show_default=True,
    metavar="LIST",
    help="Of a served model: numbers of requests under way at once.",
)
@click.option(
    "--seconds", type=float, default=20, show_default=True, help="Of a served model: how long to keep up each number."
)
@output_options
def bench(
    bundle: Path | str,
    engines: tuple[str, ...],
    against: tuple[str, ...],
    checkpoint: str | None,
    device: str | None,
    cpu_precision: CpuPrecision | None,
    batches: tuple[int, ...],
    rounds: int,
    warmup: int,
    video: Path | None,
    anyway: bool,
    save: bool,
    in_flight: tuple[int, ...],
    seconds: float,
    as_json: bool,
    progress: Silent,
) -> None:
    """Time the engines of BUNDLE in turns, and optionally PyTorch beside them.

    BUNDLE may also be a model served by Triton, such as triton://HOST:PORT/MODEL: it is kept busy with a number of
    requests in flight.
    """
    if isinstance(bundle, str):
        _refuse_given("is for a bundle; drop it for a served model", only=_OF_BUNDLE)
        _bench_served(bundle, in_flight, seconds, video, as_json, progress)
        return
    _refuse_given(f"is for a served model; give its address in place of {bundle}", only=_OF_SERVED)
    from vivit_export.bundle import read_bundle
    from vivit_export.demo import clips_path
    from vivit_export.export.bench import bench as run
    from vivit_export.export.bench import save_bench
    from vivit_export.report.text import bench_text

    source = read_bundle(bundle)
    if video is None and source.contract.io.mode != "frames":
        video = next(clips_path().glob("left*"))
    report = run(
        source,
        engines=engines,
        against=against,
        checkpoint=checkpoint,
        device=device,
        cpu_precision=cpu_precision,
        batches=batches,
        rounds=rounds,
        warmup=warmup,
        video=video,
        anyway=anyway,
        progress=progress,
    )
    if as_json:
        show_json(report.to_json())
    else:
        show_text(bench_text(report.record()))
    if save and not report.interrupted:
        save_bench(source, report, progress)
    if report.interrupted:
        raise KeyboardInterrupt


# Options of bench that only one of the two has.
_OF_SERVED = ("in_flight", "seconds")
_OF_BUNDLE = (
    *("engines", "against", "checkpoint", "device", "cpu_precision"),
    *("batches", "rounds", "warmup", "anyway", "save"),
)


def _refuse_given(why: str, *, only: tuple[str, ...]) -> None:
    """Refuse some options of the current command if the user gave them."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name in only and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
            raise UsageError(f"{param.opts[0]} {why}")


def _bench_served(
    address: str, in_flight: tuple[int, ...], seconds: float, video: Path | None, as_json: bool, progress: Silent
) -> None:
    from vivit_export.demo import clips_path
    from vivit_export.report.text import load_text
    from vivit_export.runtime.bench.serving import bench_served

    video = video or next(clips_path().glob("left*"))
    report = bench_served(address, in_flight=in_flight, seconds=seconds, video=video, progress=progress)
    if as_json:
        show_json(report.to_json())
    else:
        show_text(load_text(report))
    if report.interrupted:
        raise KeyboardInterrupt

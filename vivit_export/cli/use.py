"""The commands that inspect, run, check and time a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from vivit_export.choices import CpuPrecision, Decode
from vivit_export.cli.cluster import NOT_ON_RAY, Asked, RayChoice, predict_on_ray, ray_options
from vivit_export.cli.command import Command
from vivit_export.cli.completion import compiled_engines
from vivit_export.cli.live import LiveChoice, live_options, live_source
from vivit_export.cli.options import (
    SamplingChoice,
    output_options,
    reading_options,
    sampling_options,
    self_test_option,
    session_options,
    signature_options,
)
from vivit_export.cli.predictions import Work, predict_files, predict_live
from vivit_export.cli.show import (
    PredictionFormat,
    PredictionPrinter,
    choose_form,
    show_json,
    show_text,
)
from vivit_export.cli.spans import SpanPrinter, require_classes, require_windows, span_options
from vivit_export.cli.values import BUNDLE, FILE, SOURCE, VIDEO, length, refuse_given
from vivit_export.errors import UsageError, option

if TYPE_CHECKING:
    from vivit_export.progress import Silent
    from vivit_export.runtime.clips.windows import Unit
    from vivit_export.runtime.spans import SpanRule


@click.command(cls=Command, examples=("vivit inspect out/demo", "vivit inspect out/demo --plan-onnx plan.onnx"))
@click.argument("bundle", type=BUNDLE)
@click.option("--plan-onnx", type=FILE, help="Write the plan as an ONNX file, to view in Netron.")
@click.option("--engine", shell_complete=compiled_engines, help="Engine whose plan to write.  [default: the only one]")
@click.option("--force", is_flag=True, help="Replace the file of --plan-onnx if it exists.")
@output_options
def inspect(
    bundle: Path, plan_onnx: Path | None, engine: str | None, force: bool, as_json: bool, progress: Silent
) -> None:
    """Verify BUNDLE and show its contents: labels, drift, saved timings, signature, and the plan of each engine.

    --json prints the whole manifest and every layer of the plans.
    """
    from vivit_export.export.engine.table import choose_engine
    from vivit_export.export.inspection import inspect as inspect_bundle

    if engine is not None and plan_onnx is None:
        raise UsageError(f"{option('engine')} chooses the plan that {option('plan_onnx')} writes; give both")
    if force and plan_onnx is None:
        raise UsageError(f"{option('force')} replaces the file that {option('plan_onnx')} writes; give both")
    with progress.stage("verify the bundle"):
        found = inspect_bundle(bundle)
    if plan_onnx is not None:
        from vivit_export.export.engine.drawing import write_plan_onnx

        chosen = choose_engine(found.bundle, engine)
        write_plan_onnx(found.plans[chosen].layers, chosen, plan_onnx, force=force)
    if as_json:
        show_json(found.to_json())
    else:
        show_text(str(found))


@click.command(
    cls=Command,
    examples=(
        "vivit predict out/demo video.mp4",
        "vivit predict out/demo path/to/videos --format csv --top-k 3",
        "vivit predict out/demo long.mp4 --window 4 --hop 1",
        "vivit predict out/demo rtsp://camera.example/stream --window 2 --hop 1",
        "vivit predict triton://localhost:8000/demo video.mp4",
    ),
)
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
        refuse_given(f"is for a run in this process; leave it out with {option('ray')}", only=NOT_ON_RAY)
        run_of = (engine, device, cpu_precision, not no_self_test, decode, readers, top_k, require_signature, identity)
        predict_on_ray(cluster, Asked(bundle, videos, sampling, window, hop, labels, *run_of), as_json, progress)
        return
    cluster.refuse_without_ray()
    from vivit_export.runtime import predict as run
    from vivit_export.runtime.embeddings import files_of, require_outputs
    from vivit_export.runtime.listing import ListedVideos, list_videos

    address = live_source(videos)
    if address is not None:
        refuse_given("is for files; leave it out for live video", only=("decode", "readers"))
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

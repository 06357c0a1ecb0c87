"""The command that times a bundle, or a model served by Triton."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivit_export.choices import CpuPrecision
from vivit_export.cli.command import Command
from vivit_export.cli.completion import engines, pytorch_kinds
from vivit_export.cli.options import device_options, output_options
from vivit_export.cli.show import (
    show_json,
    show_text,
)
from vivit_export.cli.values import FILE, SOURCE, int_list, refuse_given
from vivit_export.hub import require_not_cached

if TYPE_CHECKING:
    from vivit_export.progress import Silent


@click.command(
    cls=Command,
    examples=(
        "vivit bench out/demo --against sdpa",
        "vivit bench out/demo --engine onnxruntime --batch 1,8 --save",
        "vivit bench triton://localhost:8000/demo --in-flight 1,4,16",
    ),
)
@click.argument("bundle", type=SOURCE)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME",
    shell_complete=engines,
    help="Engine to time. Repeatable.  [default: all that run on this machine]",
)
@click.option(
    "--against",
    multiple=True,
    metavar="KIND",
    shell_complete=pytorch_kinds,
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
@click.option("--anyway", is_flag=True, help="Also time engines beyond their drift gate, or without a check.")
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
        refuse_given("is for a bundle; drop it for a served model", only=_OF_BUNDLE)
        _bench_served(bundle, in_flight, seconds, video, as_json, progress)
        return
    refuse_given(f"is for a served model; give its address in place of {bundle}", only=_OF_SERVED)
    from vivit_export.bundle import read_bundle
    from vivit_export.demo import clips_path
    from vivit_export.export.bench import bench as run
    from vivit_export.export.bench import save_bench
    from vivit_export.report.text import bench_text

    source = read_bundle(bundle)
    if save:
        require_not_cached(source.path)
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

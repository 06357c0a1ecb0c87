"""Measure growth: export, engine and latency against layers, tokens and batch, at the width of ViViT-B.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --calibration-only     # only that series again, into the existing results

Checkpoints have random weights (`tools/make_checkpoint.py`): 2 to 12 layers at 32 frames, and 8 to 128 frames at 2
layers. The export and its RTX compilation run as in the command; latency is the CPU session's, which the result names.
Calibration runs on rendered clips, with 2 layers and 32 frames: its time and memory are for observing and finding the
ranges, in a process of its own. Writes ``results/scaling.json`` with the exponent b of a fit y = a x^b over each
series.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import RESULTS, environment, peak_bytes, run_measured, write_results

from vivit_export.bundle import MODEL, read_bundle
from vivit_export.bundle.manifest import ClipsRecord
from vivit_export.export.bench import bench
from vivit_export.precision import Precision
from vivit_export.progress import Console

ROOT = Path(__file__).parents[1]
VIVIT_EXPORT = str(Path(sys.executable).with_name("vivit-export"))
LAYERS, FRAMES, BATCHES = (2, 4, 8, 12), (8, 16, 32, 64, 128), (1, 2, 4, 8)
ENGINE = ("--target", "onnx", "--target", "tensorrt-rtx", "--sm", "89")
EXPORT = ("--fp16", *ENGINE, "--no-check", "--json", "-q", "--force")
CLIPS = (2, 4, 8, 16, 32)
SERIES = (
    "export_seconds", "export_peak_bytes", "engine_bytes", "activation_bytes", "seconds_per_call", "peak_bytes",
    "calibration_seconds", "ranges_seconds", "calibration_peak_bytes",
)  # fmt: skip


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--calibration-only", is_flag=True, help="Measure calibration again, and keep the rest.")
@click.option("--calibrate", "model", help="Checkpoint to calibrate.  [default: one of 2 layers]")
@click.option("--clips", default=",".join(map(str, CLIPS)), show_default=True, help="To calibrate on.")
@click.option("--results", "folder", type=click.Path(path_type=Path), default=RESULTS, help="Folder to write to.")
@click.option("--worker", nargs=3, hidden=True)
def main(
    rounds: int,
    calibration_only: bool,
    model: str | None,
    clips: str,
    folder: Path,
    worker: tuple[str, str, int] | None,
) -> None:
    """Measure."""
    if worker:
        print(json.dumps(calibrate(worker[0], Path(worker[1]), int(worker[2]))))
        return
    path = folder / "scaling.json"
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds}
    if calibration_only and path.exists():
        results = json.loads(path.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if not calibration_only:
            results |= measure_all(work, rounds)
        results["calibration"] = measure_calibration(work, model, [int(n) for n in clips.split(",")])
    rows = results["calibration"]["rows"]
    results.setdefault("exponents", {})["clips"] = exponents(rows.values(), [float(n) for n in rows])
    print(f"wrote {write_results('scaling', results, folder)}")
    print(json.dumps(results["exponents"], indent=2))


def measure_all(work: Path, rounds: int) -> dict[str, Any]:
    """Every series but calibration, with its exponents."""
    results: dict[str, Any] = {
        "layers": {str(n): measure(work, n, 32, (1,), rounds) for n in LAYERS},
        "frames": {str(n): measure(work, 2, n, (1,), rounds) for n in FRAMES},
        "batch": measure_batches(work, rounds),
    }
    results["exponents"] = {
        "layers": exponents(results["layers"].values(), [float(n) for n in LAYERS]),
        "tokens": exponents(results["frames"].values(), [row["tokens"] for row in results["frames"].values()]),
        "batch": exponents(results["batch"].values(), [float(n) for n in BATCHES]),
    }
    return results


def make_checkpoint(work: Path, layers: int, frames: int) -> Path:
    """A random checkpoint in ViViT-B's width, made where it is not there yet."""
    path = work / f"{layers}x{frames}"
    if not path.exists():
        make = [sys.executable, str(ROOT / "tools/make_checkpoint.py"), str(path)]
        run_measured([*make, "--layers", str(layers), "--frames", str(frames)])
    return path


def measure(work: Path, layers: int, frames: int, batches: Sequence[int], rounds: int) -> dict[str, Any]:
    """Export a checkpoint of that size, compile it, and time its session."""
    checkpoint = make_checkpoint(work, layers, frames)
    target = work / f"{checkpoint.name}-out"
    run = run_measured([VIVIT_EXPORT, str(checkpoint), "-o", str(target), *EXPORT])
    bundle = read_bundle(target)
    (engine,) = bundle.engines.values()
    row = {
        "tokens": bundle.manifest.model.anatomy.tokens,
        "export_seconds": run["seconds"],
        "export_peak_bytes": run["peak_bytes"],
        "engine_bytes": engine.size,
        "activation_bytes": engine.plan.activation_bytes,
    }
    report = bench(
        bundle, engines=("onnxruntime-cpu",), batches=batches, rounds=rounds, anyway=True, progress=Console()
    ).to_json()
    contender = report["contenders"]["onnxruntime-cpu"]
    figures = contender["batches"][str(batches[0])]
    return {**row, "engine": contender["engine"], "seconds_per_call": figures["p50_ms"] / 1e3,
            "peak_bytes": contender["peak_bytes"]}  # fmt: skip


def measure_batches(work: Path, rounds: int) -> dict[str, Any]:
    """Time the batches of the two-layer bundle, each in a process of its own."""
    bundle = read_bundle(work / "2x32-out")
    rows = {}
    for batch in BATCHES:
        options = {"engines": ("onnxruntime-cpu",), "batches": (batch,), "rounds": rounds, "anyway": True}
        contender = bench(bundle, **options).to_json()["contenders"]["onnxruntime-cpu"]  # type: ignore[arg-type]
        seconds = contender["batches"][str(batch)]["p50_ms"] / 1e3
        rows[str(batch)] = {"seconds_per_call": seconds, "peak_bytes": contender["peak_bytes"]}
    return rows


def measure_calibration(work: Path, model: str | None, counts: Sequence[int]) -> dict[str, Any]:
    """Calibrate on the first of some rendered clips, each number of them in a process of its own."""
    from safetensors.numpy import save_file

    from vivit_export.export.calibrate import motion_clips
    from vivit_export.export.checkpoint.load import load_checkpoint

    source = model or str(make_checkpoint(work, 2, 32))
    loaded = load_checkpoint(source)
    clips = work / "clips.safetensors"
    save_file({"frames": motion_clips(loaded, range(max(counts)))}, clips)
    rows = {}
    for count in counts:
        command = [sys.executable, __file__, "--worker", source, str(clips), str(count)]
        rows[str(count)] = json.loads(run_measured(command)["stdout"].splitlines()[-1])
    return {"environment": environment(), "layers": loaded.num_layers, "tokens": loaded.anatomy.tokens, "rows": rows}


def calibrate(model: str, clips: Path, count: int) -> dict[str, float]:
    """Seconds and peak memory of a calibration on so many clips, once the graph is made."""
    from vivit_export.calibration.clips import find_calibration_clips
    from vivit_export.calibration.collect import collect
    from vivit_export.calibration.smoothing import find_ranges
    from vivit_export.export.calibrate import calibration_contract, calibration_graph
    from vivit_export.export.checkpoint.load import load_checkpoint
    from vivit_export.export.graph.build import rewrite_graph, save_graph

    checkpoint = load_checkpoint(model)
    graph = rewrite_graph(checkpoint, ("logits", "embedding"), Precision.INT8).model
    layers = calibration_graph(checkpoint, graph)
    found = find_calibration_clips(
        clips, calibration_contract(checkpoint, graph, checkpoint.clip), limit=count, fewest=1
    )
    key = {"model": "", "weights": "", "contract": "", "clips": found.sha256}
    with tempfile.TemporaryDirectory() as folder:
        save_graph(graph, Path(folder))
        tokens = checkpoint.anatomy.tokens
        del checkpoint, graph
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here: tracing took more
        start = time.perf_counter()
        tensors = [group.tensor for group in layers]
        quiet: dict[str, Any] = {"key": key, "count": lambda _done: None}
        state = collect(Path(folder, MODEL), tensors, found, tokens=tokens, cache=Path(folder, "cache"), **quiet)
        observed = time.perf_counter()
        none = ClipsRecord("", 0)
        find_ranges(layers, {}, state, precision=Precision.INT8, method="mse", smooth="auto", clips=none, **quiet)
        times = {"calibration_seconds": observed - start, "ranges_seconds": time.perf_counter() - observed}
        return {**times, "calibration_peak_bytes": peak_bytes()}


def exponents(rows: Any, sizes: Sequence[float]) -> dict[str, float]:
    """Slopes of log y over log x, for each figure that all rows have."""
    table = list(rows)
    return {
        name: round(float(np.polyfit(np.log(sizes), np.log([row[name] for row in table]), 1)[0]), 2)
        for name in SERIES
        if all(name in row for row in table)
    }


if __name__ == "__main__":
    main()

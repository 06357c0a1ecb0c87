"""How things grow: export, engine and latency against layers, tokens and batch, in ViViT-B's width.

    python benchmarks/scaling.py

Checkpoints have random weights (`tools/make_checkpoint.py`): 2 to 12 layers at 32 frames, and 8 to 128 frames at 2
layers. The export and its RTX compile run as the command does; latency is that of the CPU session, which is told
in the result. Writes ``results/scaling.json`` with the exponent b of a fit y = a x^b over each series.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import environment, run_measured, write_results

from vivit_export.bundle import read_bundle
from vivit_export.progress import Console
from vivit_export.runtime.bench import bench

ROOT = Path(__file__).parents[1]
VIVIT_EXPORT = str(Path(sys.executable).with_name("vivit-export"))
LAYERS, FRAMES, BATCHES = (2, 4, 8, 12), (8, 16, 32, 64, 128), (1, 2, 4, 8)
ENGINE = ("--target", "onnx", "--target", "tensorrt-rtx", "--sm", "89")
EXPORT = ("--fp16", *ENGINE, "--no-check", "--json", "-q", "--force")
SERIES = ("export_seconds", "export_peak_bytes", "engine_bytes", "activation_bytes", "seconds_per_call", "peak_bytes")


@click.command()
@click.option("--rounds", default=3, show_default=True)
def main(rounds: int) -> None:
    """Measure."""
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        results["layers"] = {str(n): measure(work, n, 32, (1,), rounds) for n in LAYERS}
        results["frames"] = {str(n): measure(work, 2, n, (1,), rounds) for n in FRAMES}
        results["batch"] = measure_batches(work, rounds)
    results["exponents"] = {
        "layers": exponents(results["layers"].values(), [float(n) for n in LAYERS]),
        "tokens": exponents(results["frames"].values(), [row["tokens"] for row in results["frames"].values()]),
        "batch": exponents(results["batch"].values(), [float(n) for n in BATCHES]),
    }
    print(f"wrote {write_results('scaling', results)}")
    print(json.dumps(results["exponents"], indent=2))


def measure(work: Path, layers: int, frames: int, batches: Sequence[int], rounds: int) -> dict[str, Any]:
    """Export a checkpoint of that size, compile it, and time its session."""
    name = f"{layers}x{frames}"
    make = [sys.executable, str(ROOT / "tools/make_checkpoint.py"), str(work / name)]
    run_measured([*make, "--layers", str(layers), "--frames", str(frames)])
    run = run_measured([VIVIT_EXPORT, str(work / name), "-o", str(work / f"{name}-out"), *EXPORT])
    bundle = read_bundle(work / f"{name}-out")
    (sidecar,) = bundle.engines.values()
    row = {
        "tokens": bundle.contract.clip.num_tokens,
        "export_seconds": run["seconds"],
        "export_peak_bytes": run["peak_bytes"],
        "engine_bytes": sidecar["size"],
        "activation_bytes": sidecar["plan"]["activation_bytes"],
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

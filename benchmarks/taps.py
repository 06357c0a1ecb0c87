"""Measure the error at every tap of an export in each precision, and what ``vivit check --per-block`` takes.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/taps.py --clips 8 demo /tmp/vivit-b

Exports each checkpoint without a check: the demo in all precisions, others in fp16. The check runs in a process of its
own, whose peak memory is recorded. The budgets of taps in ``vivit_export/precision.py`` follow from this; a test
compares them. Writes ``results/taps.json``, in which checks of other checkpoints stay.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from common import RESULTS, environment, run_measured, write_results

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.precision import Precision

_CALIBRATION_CLIPS = 64


@click.command()
@click.argument("checkpoints", nargs=-1, required=True)
@click.option("--clips", default=8, show_default=True, help="Clips to check on.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the result.")
def main(checkpoints: tuple[str, ...], clips: int, out: Path) -> None:
    """Measure CHECKPOINTS: folders, or "demo"."""
    path = out / "taps.json"
    checks = json.loads(path.read_text())["checks"] if path.exists() else {}
    for checkpoint in checkpoints:
        for precision in Precision if checkpoint == "demo" else (Precision.FP16,):
            name = f"{Path(checkpoint).name} {precision}"
            around = environment()
            checks[name] = {"clips": clips, "environment": around, **measure(checkpoint, precision, clips)}
            print(name, checks[name]["seconds"], "s", checks[name]["peak_bytes"] / 1e9, "GB", file=sys.stderr)
            print(f"wrote {write_results('taps', {'environment': around, 'checks': checks}, out)}")


def measure(checkpoint: str, precision: Precision, clips: int) -> dict[str, Any]:
    """Export and check; return the seconds, the peak memory, and the errors at the taps."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        calibration = CalibrationOptions(num_clips=_CALIBRATION_CLIPS if precision.quantized else None)
        ve.export_model(
            checkpoint, bundle, precision=precision, targets=("onnx",), check=False, calibration=calibration
        )
        return measure_check(bundle, checkpoint, clips)


def measure_check(bundle: Path, checkpoint: str, clips: int) -> dict[str, Any]:
    """The same for a bundle that is there."""
    command = ["check", str(bundle), "--checkpoint", checkpoint, "--num-clips", str(clips), "--per-block", "--json"]
    ran = run_measured([sys.executable, "-c", "from vivit_export.cli import vivit; vivit()", *command, "-q"])
    report = json.loads(ran["stdout"])["taps"]
    taps = {
        tap["name"]: {kind: tap[kind] and tap[kind]["error"] for kind in ("precision", "graph", "total")}
        for tap in report["taps"]
    }
    largest = max(error for tap in taps.values() for error in (tap["precision"] or 0.0, tap["graph"]))
    return {
        "seconds": ran["seconds"], "peak_bytes": ran["peak_bytes"], "largest_error": largest, "graph": report["graph"],
        "taps": taps,
    }  # fmt: skip


if __name__ == "__main__":
    main()

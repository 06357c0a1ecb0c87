"""Measure sessions on the CPU for the other model families: base size, random weights, batch 1, against SDPA.

    python benchmarks/session_families.py

As `session`, whose workers it uses: the contenders take turns, one clip each, and the ratios are what counts. INT8 is
calibrated on a few rendered clips: its speed does not depend on them. The plain export has no rewrites. Writes
``results/session_families.json``.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
from common import RESULTS, environment, load_tool, write_crops, write_results
from plan import FAMILIES
from session import BASELINE, compete

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.precision import Precision
from vivit_export.rewrite import REWRITE_NAMES

CHOSEN = ("ViViT-B/16x2 factorised encoder", "VideoMAE-B 16x224", "TimeSformer-B 8x224", "V-JEPA 2-L 16x256")
NAME = "session_families"


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--model", "models", multiple=True, type=click.Choice(CHOSEN), help="Only this one; the others stay.")
def main(rounds: int, models: tuple[str, ...]) -> None:
    """Measure the base size of each family; of V-JEPA 2 the large one, which is its smallest."""
    here, path = environment(), RESULTS / f"{NAME}.json"
    results: dict[str, Any] = {"environment": here, "rounds": rounds}
    if models and path.exists():
        results = json.loads(path.read_text())
        results["measured_again"] = {**results.get("measured_again", {}), **dict.fromkeys(models, here)}
    for title in models or CHOSEN:
        family, fields = FAMILIES[title]
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder, "checkpoint")
            load_tool("make_checkpoint").make_other(family, checkpoint, **fields)
            results[title] = compete(_bundles(checkpoint, Path(folder)), checkpoint, Path(folder), rounds)
        print(json.dumps({title: results[title]}, indent=2), flush=True)
    print(f"wrote {write_results(NAME, results)}")


def _bundles(checkpoint: Path, folder: Path) -> dict[str, Path]:
    """Export what each contender runs, by its name in `session.load`."""
    data = write_crops(checkpoint, folder / "crops.safetensors")
    exports: dict[str, dict[str, Any]] = {
        "fp32": {},
        "plain": {"skip_rewrites": REWRITE_NAMES},
        "int8": {"precision": Precision.INT8, "calibration": CalibrationOptions((data,))},
    }
    for name, fields in exports.items():
        ve.export_model(checkpoint, folder / name, targets=("onnx",), check=False, **fields)
    return {
        BASELINE: folder / "fp32",
        "onnxruntime": folder / "fp32",
        "openvino": folder / "fp32",
        "openvino, bf16": folder / "fp32",
        "openvino, plain export": folder / "plain",
        "onnxruntime, int8": folder / "int8",
        "openvino, int8": folder / "int8",
        "openvino, int8, bf16": folder / "int8",
    }


if __name__ == "__main__":
    main()

"""Measure the main job: export time, memory and drift of ViViT-B/16x2, and the demo's agreement.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/export.py /tmp/vivit-b

ViViT-B has random weights: those of `tools/make_checkpoint.py`, whose logits spread over 26 units. For
float32 noise it also has transformers' own initial weights (seed 0), whose logits spread over 3.
The demo is trained. Writes ``results/export.json``.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import environment, run_measured, write_results

import vivit_export as ve
from vivit_export.demo.motion import LABELS, render_clip
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.precision import Precision
from vivit_export.records import to_json
from vivit_export.rewrite import REWRITE_NAMES
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

VIVIT_EXPORT = str(Path(sys.executable).with_name("vivit-export"))


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
def main(checkpoint: Path) -> None:
    """Measure on CHECKPOINT, a ViViT-B/16x2 folder."""
    results: dict[str, Any] = {"environment": environment()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        results["help_seconds"] = min(run_measured([VIVIT_EXPORT, "--help"])["seconds"] for _ in range(5))
        results["vivit_b_export_fp16"] = measure_export(checkpoint, work / "fp16")
        results["vivit_b_rewrites"] = cost_of_rewrites(checkpoint, work / "cost")
        initial = as_initialized(work / "initialized")
        results["vivit_b_fp32_on_noise"] = {
            "weights of make_checkpoint.py": drift_on_noise(checkpoint, work / "fp32"),
            "weights as transformers initializes them": drift_on_noise(initial, work / "initial-fp32"),
        }
        results["demo_generated_200"] = demo_agreement(work)
    path = write_results("export", results)
    print(json.dumps({k: v for k, v in results.items() if k != "environment"}, indent=2))
    print(f"wrote {path}")


def measure_export(checkpoint: Path, target: Path) -> dict[str, Any]:
    """The command of the README at full size, check on one clip included."""
    options = [
        "--fp16",
        "--target",
        "onnx",
        "--target",
        "tensorrt-rtx",
        "--sm",
        "89",
        "--num-clips",
        "1",
        "--json",
        "-q",
    ]
    run = run_measured([VIVIT_EXPORT, str(checkpoint), "-o", str(target), *options])
    report = json.loads(run["stdout"])
    shutil.rmtree(target)
    engine = report["engines"]["tensorrt-rtx-sm89"]
    return {
        "options": " ".join(options),
        "seconds": run["seconds"],
        "peak_bytes": run["peak_bytes"],
        "stages": report["seconds"],
        "bundle_bytes": report["size"],
        "drift": {f"{r['engine']}, batch {r['batch']}": r["drift"] or r["note"] for r in report["checks"]["runs"]},
        "engine": {k: engine["plan"][k] for k in ("kernels", "attention_fused", "gemms", "activation_bytes")},
    }


def cost_of_rewrites(checkpoint: Path, target: Path) -> dict[str, Any]:
    """Time and memory of the export, unchecked and without engines, with all rewrites and with none."""
    figures = {}
    for name, left_out in (("all", ()), ("none", REWRITE_NAMES)):
        skips = [word for rewrite in left_out for word in ("--no-rewrite", rewrite)]
        options = ["--fp16", "--target", "onnx", "--attention", "pattern", "--no-check", "-q", "--force"]
        runs = [run_measured([VIVIT_EXPORT, str(checkpoint), "-o", str(target), *options, *skips]) for _ in range(2)]
        figures[name] = {key: min(run[key] for run in runs) for key in ("seconds", "peak_bytes")}
    return figures


def as_initialized(folder: Path) -> Path:
    """ViViT-B/16x2 with 400 labels as ``VivitForVideoClassification`` is born, seed 0."""
    import torch
    import transformers

    torch.manual_seed(0)
    transformers.VivitForVideoClassification(transformers.VivitConfig(num_labels=400)).save_pretrained(folder)
    transformers.VivitImageProcessor().save_pretrained(folder)
    return folder


def drift_on_noise(checkpoint: Path, target: Path) -> dict[str, Any]:
    """ONNX fp32 against eager fp32 on N(0, 1) pixels, beside what PyTorch's other attention differs by."""
    bundle = ve.export_model(str(checkpoint), target, targets=("onnx",), input_mode="pixels", check=False)
    loaded = load_checkpoint(str(checkpoint))
    clip = loaded.clip
    shape = (1, clip.num_frames, 3, clip.height, clip.width)
    pixels = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    result = OnnxRuntimeSession(bundle.model).run(pixels)
    reference = loaded.run_eager(pixels)
    loaded.network.config._attn_implementation = "eager"
    written_out = loaded.run_eager(pixels)
    return {
        "onnx": to_json(compare(reference, result)),
        "eager attention instead of sdpa": to_json(compare(reference, written_out)),
        "logit_range": float(np.ptp(reference["logits"])),
    }


def demo_agreement(work: Path) -> dict[str, Any]:
    """Top-1 agreement of the fp16 and bf16 demo with eager fp32 on 200 clips it has never seen."""
    loaded = load_checkpoint("demo")
    crops, truth = _generated(loaded, 200)
    pixels = Preprocessor(loaded.clip, loaded.preprocess).to_pixels(crops)
    reference = loaded.run_eager(pixels)
    figures: dict[str, Any] = {"eager fp32 accuracy": float(np.mean(reference["logits"].argmax(1) == truth))}
    bundle = ve.export_model("demo", work / "demo", precision="fp16", targets=("onnx",))
    figures["fp16, ONNX Runtime"] = to_json(compare(reference, OnnxRuntimeSession(bundle.model).run(crops)))
    for precision in ("fp16", "bf16"):
        figures[f"{precision}, rounding emulated"] = _emulated(work, precision, reference, crops)
    return figures


def _emulated(
    work: Path, precision: str, reference: dict[str, npt.NDArray[np.float32]], crops: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    import onnx_ir as ir

    from vivit_export.export.graph.emulate import emulate_low_precision

    bundle = ve.export_model(
        "demo", work / f"{precision}-pattern", precision=Precision(precision), targets=("onnx",), attention="pattern"
    )
    path = work / f"{precision}.onnx"
    ir.save(emulate_low_precision(ir.load(bundle.model)), path)
    return dict(to_json(compare(reference, OnnxRuntimeSession(path).run(crops))))


def _generated(loaded: Checkpoint, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Clips from seeds that neither training nor its evaluation used."""
    preprocessor = Preprocessor(loaded.clip, loaded.preprocess)
    truth = np.arange(count) % len(LABELS)
    frames = [
        render_clip(LABELS[label], seed=1_000_000 + i, num_frames=loaded.clip.num_frames, height=96, width=128)
        for i, label in enumerate(truth)
    ]
    return np.stack([preprocessor.crops(f) for f in frames]), truth


if __name__ == "__main__":
    main()

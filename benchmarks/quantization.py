"""Measure INT8 and FP8: accuracy, memory and time of calibration, beside ONNX Runtime's own quantizer; plans.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/quantization.py /tmp/vivit-b

On the demo, 500 fresh motion clips show how often the class stays the same. On the demo with outlier channels
(``tools/outliers.py``), plain W8A8 fails. On ViViT-B/16x2 with random weights, the logits of a few clips are
compared. All quantizers get the same clips and the same rewritten graph. Each calibration runs in a process of
its own, so that its memory is its own. Writes ``results/quantization.json``; ``--part`` measures a part again, and
keeps the rest of that file.

NVIDIA ModelOpt takes part if you name its Python; it needs an environment of its own::

    python -m venv /tmp/modelopt && /tmp/modelopt/bin/pip install "nvidia-modelopt[onnx]"
    python benchmarks/quantization.py /tmp/vivit-b --modelopt /tmp/modelopt/bin/python
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import RESULTS, environment, load_tool, run_measured, write_results
from plan import compile_graph
from safetensors.numpy import load_file, save_file

from vivit_export.bundle import MODEL
from vivit_export.bundle.manifest import ClipsRecord
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.calibration.ranges import LayerRange, Ranges
from vivit_export.demo import checkpoint_path
from vivit_export.demo.motion import LABELS
from vivit_export.export.calibrate import calibration_contract, calibration_graph, motion_clips, obtain_ranges
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.engine.plan import prove
from vivit_export.export.graph.build import Quantization, build_graph, rewrite_graph, save_graph
from vivit_export.export.graph.quantize import find_groups, quantize
from vivit_export.export.graph.quantize_attention import name_attention_inputs, quantize_attention
from vivit_export.export.graph.rewrites import lower_attention
from vivit_export.precision import Precision
from vivit_export.progress import Silent
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

OURS = ("ours int8", "ours fp8", "ours fp8, attention too", "ours int8, minmax, no smoothing")
PEERS = ("onnxruntime quantize_static, minmax", "modelopt, max")
CALIBRATION_SEED, EVALUATION_SEED = 700_000, 2_000_000  # neither of the demo's training nor of its own calibration
SM = 89
PLANNED = ("int8", "fp8", "fp8, attention too")
MODELS = ("demo", "demo with outliers", "ViViT-B/16x2", "ViViT-B/16x2 with outliers")
PARTS = (*MODELS, "calibration time", "plans")
TIMED_CLIPS = 64


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--clips", default=64, show_default=True, help="Calibration clips of ViViT-B.")
@click.option("--evaluation-clips", default=4, show_default=True, help="Clips that ViViT-B's logits are compared on.")
@click.option("--modelopt", type=click.Path(path_type=Path), help="Python with nvidia-modelopt.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Repeatable.  [default: all]")
@click.option("--quantizer", "names", multiple=True, help="Only these of a part, and keep its others. Repeatable.")
@click.option("--worker", nargs=3, hidden=True)
def main(
    checkpoint: Path,
    clips: int,
    evaluation_clips: int,
    modelopt: Path | None,
    parts: tuple[str, ...],
    names: tuple[str, ...],
    worker: tuple[str, str, str] | None,
) -> None:
    """Measure on CHECKPOINT, a ViViT-B/16x2 folder, and on the demo."""
    if worker:
        serve(worker[0], str(checkpoint), Path(worker[1]), worker[2])
        return
    known = RESULTS / "quantization.json"
    results: dict[str, Any] = json.loads(known.read_text()) if parts and known.exists() else {}
    results["environment"] = environment()
    with tempfile.TemporaryDirectory() as folder:
        for part in parts or PARTS:
            work = Path(folder, part.replace("/", "-"))
            if part == "plans":
                results[part] = {precision: plan_of(str(checkpoint), precision, work) for precision in PLANNED}
                print(json.dumps(results[part], indent=2))
            elif part == "calibration time":
                results[part] = contend(str(checkpoint), work, TIMED_CLIPS, evaluation_clips, OURS[:1], None)
            else:
                model, calibrate, evaluate = setting(part, checkpoint, clips, evaluation_clips, Path(folder))
                wanted = names or (*OURS, PEERS[0], *([PEERS[1]] if modelopt else []))
                found = contend(model, work, calibrate, evaluate, wanted, modelopt)
                results[part] = {**(results.get(part, {}) if names else {}), **found}
            write_results("quantization", results)
    print(f"wrote {known}; benchmarks/page/write_performance_page.py makes tables of it")


def setting(title: str, checkpoint: Path, clips: int, evaluation_clips: int, folder: Path) -> tuple[str, int, int]:
    """One of `MODELS`, made in ``folder`` where it has outliers; how many clips to calibrate and to compare on.

    Outlier channels leave the function as it is (``tools/outliers.py``).
    """
    large = title.startswith("ViViT")
    model = str(checkpoint) if large else "demo"
    if title.endswith("outliers"):
        source, model = model, str(folder / f"spiked-{title.replace('/', '-')}")
        load_tool("outliers").main([source, model], standalone_mode=False)
    return model, *((clips, evaluation_clips) if large else (256, 500))


def contend(
    model: str, work: Path, calibrate: int, evaluate: int, names: Sequence[str], modelopt: Path | None
) -> dict[str, Any]:
    """Let each quantizer make its graph in a process of its own, then compare all graphs on the same clips."""
    work.mkdir()
    checkpoint = load_checkpoint(model)
    rewritten = rewrite_graph(checkpoint, ("logits",), Precision.INT8).model
    calibration_graph(checkpoint, rewritten)
    contract = calibration_contract(checkpoint, rewritten, checkpoint.clip)
    (work / "float").mkdir()
    save_graph(rewritten, work / "float")
    del rewritten
    for name, seed, count in (("calibration", CALIBRATION_SEED, calibrate), ("evaluation", EVALUATION_SEED, evaluate)):
        save_file({"frames": motion_clips(contract, range(seed, seed + count))}, work / f"{name}.safetensors")
    crops = load_file(work / "evaluation.safetensors")["frames"]
    session = OnnxRuntimeSession(work / "float" / MODEL, prepared=True)
    start = time.perf_counter()
    reference = session.run_in_batches(crops, 1)
    forward = (time.perf_counter() - start) / len(crops)
    del session
    truth = np.arange(EVALUATION_SEED, EVALUATION_SEED + evaluate) % len(LABELS)
    floating = {"accuracy": accuracy(reference, truth), "seconds_per_clip": forward}
    figures: dict[str, Any] = {"float32": {**floating, "calibrated_on": calibrate, "compared_on": evaluate}}
    for name in names:
        command = [sys.executable, __file__, model_argument(model), "--worker", name, str(work), str(modelopt)]
        try:
            made = run_measured(command)
        except RuntimeError as e:
            figures[name] = {"error": str(e).strip().splitlines()[-1]}
            continue
        *_, stages, graph = made["stdout"].splitlines()
        found = OnnxRuntimeSession(Path(graph), prepared=True).run_in_batches(crops, 1)
        drift = compare(reference, found)
        figures[name] = {
            "top1": drift.top1,
            "accuracy": accuracy(found, truth),
            "max": drift.max,
            "rms": drift.rms,
            "cosine": drift.cosine,
            "seconds": made["seconds"],
            "stages": json.loads(stages),
            "peak_bytes": made["peak_bytes"],
        }
        print(f"  {name}: {figures[name]}", file=sys.stderr, flush=True)
    return figures


def model_argument(model: str) -> str:
    """What the worker's CHECKPOINT is: a path that exists, the demo's folder for the demo."""
    return str(checkpoint_path()) if model == "demo" else model


def accuracy(outputs: Outputs, truth: npt.NDArray[np.int64]) -> float | None:
    """Share of right classes, for models that were trained to tell motions apart."""
    return float(np.mean(outputs["logits"].argmax(1) == truth)) if outputs["logits"].shape[1] == len(LABELS) else None


def serve(name: str, model: str, work: Path, modelopt: str) -> None:
    """Quantize in this process; print the path of the graph."""
    data, stages = work / "calibration.safetensors", Silent()
    out = work / name.replace(" ", "-").replace(",", "")
    out.mkdir()
    if name.startswith("ours"):
        os.environ["XDG_CACHE_HOME"] = str(out / "cache")
        quantize_ourselves(name, load_checkpoint(model), data, out, stages)
    elif name.startswith("onnxruntime"):
        quantize_with_onnxruntime(work / "float" / MODEL, data, out)
    else:
        quantize_with_modelopt(modelopt, work / "float" / MODEL, data, out)
    print(json.dumps(stages.seconds))
    print(out / MODEL)


def quantize_ourselves(name: str, checkpoint: Checkpoint, data: Path, out: Path, progress: Silent) -> None:
    """Calibrate, choose smoothing, and write the float32 graph with codes."""
    plain, attention = "no smoothing" in name, "attention" in name
    options = CalibrationOptions((data,), method="minmax" if plain else "mse", smooth="none" if plain else "auto")
    precision = Precision.FP8 if "fp8" in name else Precision.INT8
    rewritten = rewrite_graph(checkpoint, ("logits",), Precision.INT8)
    ranges = obtain_ranges(checkpoint, rewritten, checkpoint.clip, precision, options, progress, attention=attention)
    model = rewritten.model
    quantize(model, checkpoint.anatomy, ranges)
    if attention:
        lower_attention(model)
        quantize_attention(model, ranges)
    calibration_graph(checkpoint, model)
    save_graph(model, out)


def quantize_with_onnxruntime(graph: Path, data: Path, out: Path) -> None:
    """``quantize_static`` as its documentation advises for transformers: Q/DQ, signed, symmetric, per channel.

    Left to itself it quantizes the products' outputs too, which costs accuracy, and ONNX Runtime 1.32 cannot load the
    result.
    """
    from onnxruntime import quantization as q

    rows = iter(load_file(data)["frames"])

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            row = next(rows, None)
            return None if row is None else {"frames": row[None]}

    q.quantize_static(
        graph,
        out / MODEL,
        Reader(),
        quant_format=q.QuantFormat.QDQ,
        per_channel=True,
        activation_type=q.QuantType.QInt8,
        weight_type=q.QuantType.QInt8,
        calibrate_method=q.CalibrationMethod.MinMax,
        nodes_to_quantize=linears(graph),
        use_external_data_format=True,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "MatMulConstBOnly": True,
            "OpTypesToExcludeOutputQuantization": ["MatMul"],
        },
    )


def quantize_with_modelopt(python: str, graph: Path, data: Path, out: Path) -> None:
    """``modelopt.onnx.quantization`` on the same Linears, with its own defaults otherwise."""
    np.save(out / "calibration.npy", load_file(data)["frames"])
    command = [
        *(python, "-m", "modelopt.onnx.quantization", f"--onnx_path={graph}", f"--output_path={out / MODEL}"),
        *("--quantize_mode=int8", f"--calibration_data_path={out / 'calibration.npy'}", "--calibration_method=max"),
        *("--op_types_to_quantize", "MatMul", "--disable_mha_qdq", "--high_precision_dtype=fp32"),
        *("--calibration_eps", "cpu", "--use_external_data_format"),
    ]
    run_measured(command)


def linears(graph: Path) -> list[str]:
    """The encoder's Linears, by node name."""
    import onnx

    proto = onnx.load(graph, load_external_data=False).graph
    constants = {tensor.name for tensor in proto.initializer}
    found = [
        n for n in proto.node if n.op_type == "MatMul" and n.name.startswith("layers.") and n.input[1] in constants
    ]
    return [node.name for node in found]


def plan_of(model: str, name: str, work: Path) -> dict[str, Any]:
    """What TensorRT for RTX makes of our graph, without a GPU; the ranges are made up, as no kernel depends on them."""
    work.mkdir(exist_ok=True)
    precision, attention = Precision(name.partition(",")[0]), "attention" in name
    checkpoint = load_checkpoint(model)
    rewritten = rewrite_graph(checkpoint, ("logits", "embedding"), Precision.INT8)
    layers = {
        place.group.name: LayerRange(8.0, 8.0, None, None, 0.0)
        for place in find_groups(rewritten.model, checkpoint.anatomy)
    }
    blocks = dict.fromkeys(name_attention_inputs(rewritten.model), 8.0)
    ranges = Ranges(precision, "minmax", {}, ClipsRecord("", 0), layers, blocks)
    made = build_graph(
        checkpoint,
        precision=precision,
        form="pattern",
        opset=20,
        input_mode="crops",
        outputs=("logits", "embedding"),
        quantization=Quantization(rewritten, ranges, attention=attention),
    )
    folder = work / name.replace(" ", "-").replace(",", "")
    folder.mkdir()
    save_graph(made.model, folder)
    plan = compile_graph(made.model, folder, SM).plan
    return {
        "kernels": plan.kernels,
        "copies": plan.copies,
        "attention_fused": plan.attention_fused,
        "gemms": plan.gemms,
        "activation_bytes": plan.activation_bytes,
        "weight_bytes": plan.weight_bytes,
        "evidence": prove(
            plan,
            precision=precision,
            num_attention=checkpoint.num_layers,
            num_gemms=4 * checkpoint.num_layers,
            attention_dtype=Precision.FP8.plan_type if attention else None,
        ),
    }


if __name__ == "__main__":
    main()

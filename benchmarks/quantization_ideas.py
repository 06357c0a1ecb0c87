"""What INT8 and FP8 owe to bias correction and to clipping weights, and a form of the former that is left out.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/quantization_ideas.py /tmp/vivit-b

Bias correction (arXiv:1906.04721) corrects the mean shift caused by quantization in the bias. What ships corrects the
weights' part, from the channel means of all clips (`calibration.smoothing`); the kept rows could correct the inputs'
part too. INT8 weights of Q, K and V, which share a scale, span the range with the least error of the output
(`calibration.smoothing.find_reach`), or all of the largest weight. Each idea is removed from the same ranges. Writes
``results/quantization_ideas.json``.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from common import RESULTS, environment, write_results
from quantization import CALIBRATION_SEED, EVALUATION_SEED, MODELS, setting
from safetensors import safe_open
from safetensors.numpy import save_file

from vivit_export.bundle import MODEL
from vivit_export.calibration.cache import Observations, load_observations
from vivit_export.calibration.linears import LinearGroup, quantize_input, quantize_weights
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.calibration.ranges import Ranges
from vivit_export.export.calibrate import calibration_contract, calibration_graph, motion_clips, obtain_ranges
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.graph.build import Rewritten, rewrite_graph, save_graph
from vivit_export.export.graph.quantize import find_groups, quantize
from vivit_export.export.graph.rewrites.nodes import replace_constant
from vivit_export.precision import Precision
from vivit_export.progress import Silent
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

Float32 = npt.NDArray[np.float32]

IDEAS = ("as it ships", "no bias correction", "bias correction by rows", "weights not clipped")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--clips", default=32, show_default=True, help="Calibration clips of ViViT-B.")
@click.option("--evaluation-clips", default=4, show_default=True, help="Clips that ViViT-B's logits are compared on.")
@click.option("--part", "parts", multiple=True, type=click.Choice(MODELS), help="Repeatable.  [default: all]")
def main(checkpoint: Path, clips: int, evaluation_clips: int, parts: tuple[str, ...]) -> None:
    """Measure on CHECKPOINT, a ViViT-B/16x2 folder, and on the demo, each with outlier channels too."""
    known = RESULTS / "quantization_ideas.json"
    results: dict[str, Any] = json.loads(known.read_text()) if parts and known.exists() else {}
    results["environment"] = environment()
    with tempfile.TemporaryDirectory() as folder:
        for part in parts or MODELS:
            model, calibrate, evaluate = setting(part, checkpoint, clips, evaluation_clips, Path(folder))
            found = {precision: try_ideas(model, precision, calibrate, evaluate) for precision in ("int8", "fp8")}
            results[part] = {"calibrated_on": calibrate, "compared_on": evaluate, **found}
            write_results("quantization_ideas", results)
            print(json.dumps({part: results[part]}, indent=2), flush=True)
    print(f"wrote {known}")


def try_ideas(model: str, precision: str, calibrate: int, evaluate: int) -> dict[str, Any]:
    """Drift of the float32 graph with codes, by idea."""
    checkpoint = load_checkpoint(model)
    rewritten = rewrite_graph(checkpoint, ("logits",), Precision.INT8)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        graph = rewritten.model.clone()
        calibration_graph(checkpoint, graph)
        contract = calibration_contract(checkpoint, graph, checkpoint.clip)
        evaluation = motion_clips(contract, range(EVALUATION_SEED, EVALUATION_SEED + evaluate))
        reference = run(graph, work / "float", evaluation)
        clips = motion_clips(contract, range(CALIBRATION_SEED, CALIBRATION_SEED + calibrate))
        save_file({"frames": clips}, work / "clips.safetensors")
        options = CalibrationOptions((work / "clips.safetensors",), cache=work / "cache")
        ranges = obtain_ranges(checkpoint, rewritten, checkpoint.clip, Precision(precision), options, Silent())
        seen = observations(work / "cache")
        figures = {}
        for idea in IDEAS if precision == "int8" else IDEAS[:-1]:  # FP8 weights are never clipped
            model_with = with_idea(idea, checkpoint, rewritten, ranges, seen)
            drift = compare(reference, run(model_with, work / idea.replace(" ", "-"), evaluation))
            figures[idea] = {"top1": drift.top1, "max": drift.max, "rms": drift.rms, "cosine": drift.cosine}
    return figures


def observations(cache: Path) -> Observations:
    """What a calibration kept."""
    with safe_open(cache, "numpy") as file:
        key = json.loads(file.metadata()["state"])["key"]
    state = load_observations(cache, key)
    assert state is not None
    return state


def run(model: ir.Model, folder: Path, crops: npt.NDArray[np.uint8]) -> Outputs:
    """Results of a graph on crops."""
    folder.mkdir()
    save_graph(model, folder)
    return OnnxRuntimeSession(folder / MODEL, prepared=True).run_in_batches(crops, 1)


def with_idea(idea: str, checkpoint: Checkpoint, rewritten: Rewritten, ranges: Ranges, seen: Observations) -> ir.Model:
    """The quantized float32 graph, with one of `IDEAS`."""
    model = rewritten.model.clone()
    if idea == IDEAS[0]:
        quantize(model, checkpoint.anatomy, ranges)
        calibration_graph(checkpoint, model)
        return model
    unclipped = idea == "weights not clipped"
    layers = {
        name: replace(layer, shift=None, percent=100 if unclipped else layer.percent)
        for name, layer in ranges.layers.items()
    }
    bare = replace(ranges, layers=layers)
    places = (
        []
        if idea == "no bias correction"
        else [place for place in find_groups(model, checkpoint.anatomy) if place.bias]
    )
    quantize(model, checkpoint.anatomy, bare)
    for place in places:
        assert place.bias is not None
        add, index = place.bias
        value = add.inputs[index]
        assert value is not None and value.const_value is not None
        change = shift(place.group, bare, seen, rows="rows" in idea)
        replace_constant(add, index, value.const_value.numpy() + change)
    calibration_graph(checkpoint, model)
    return model


def shift(group: LinearGroup, ranges: Ranges, seen: Observations, *, rows: bool) -> Float32:
    """What quantization takes from the mean of a layer's output, float32 (out,)."""
    found, tensor = ranges.layers[group.name], seen.tensors[group.tensor]
    factors = factors_of(group, ranges)
    (weight,) = group.weights
    smoothed = (weight * factors[:, None],)
    (quantized,) = quantize_weights(group, ranges.precision, smoothed, found.percent)
    if not rows:
        mean = tensor.channel_mean.astype(np.float32)
        return np.asarray(mean @ weight - mean / factors @ quantized.values)
    inputs = quantize_input(tensor.rows / factors, found.amax, ranges.precision)
    return np.asarray((tensor.rows @ weight - inputs @ quantized.values).mean(axis=0))


def factors_of(group: LinearGroup, ranges: Ranges) -> Float32:
    """What smoothing divides each channel of the input by, float32 (channels,)."""
    exponents = ranges.layers[group.name].divisors
    return np.ldexp(np.ones(len(group.weights[0]), np.float32), 0 if exponents is None else exponents)


if __name__ == "__main__":
    main()

"""Try INT8 in attention itself where it is short enough for INT8 kernels: the factorised encoder's 197 tokens.

    python benchmarks/int8_attention.py

TensorRT documents INT8 fused attention for up to 512 tokens and heads of 16, 32 or 64. What the compiler makes of it is
read from plans of the ViViT-B/16x2 factorised encoder with three and one blocks and random weights, whose Linears are
INT8 already: with attention in fp16, as it ships, and with Q, K, V and the softmax in INT8 (one scale for the first
three, 1/127 for the last, as FP8 attention has them). What that costs is measured on the small factorised encoder that
the tests have, which was trained on the demo's task: attention alone is rounded, to INT8 and to FP8. The last block of
a stack attends from one token alone, which needs no fused kernel: it is left as it is. Writes
``results/int8_attention.json``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir
from common import environment, load_tool, write_crops, write_results
from plan import BATCHES, SMS, compile_graph
from quantization import CALIBRATION_SEED, EVALUATION_SEED

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.export.calibrate import motion_clips
from vivit_export.export.checkpoint.load import load_checkpoint
from vivit_export.export.graph.build import build_graph, save_graph
from vivit_export.export.graph.quantize import quantize_value
from vivit_export.export.graph.rewrites.nodes import module_path, new_constant
from vivit_export.precision import Precision
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

TRAINED = Path(__file__).parents[1] / "tests/data/factorised"
DEPTHS = {"num_hidden_layers": 3, "temporal_num_hidden_layers": 1}
_HALF_STEPS = (np.array(0.05, np.float16), np.array(1 / 127, np.float16))  # any scale gives the same kernels


@click.command()
@click.option("--clips", default=64, show_default=True, help="Clips that ranges are taken from.")
@click.option("--evaluation-clips", default=500, show_default=True, help="Clips that logits are compared on.")
def main(clips: int, evaluation_clips: int) -> None:
    """Compile both forms for each compute capability, and measure what INT8 attention costs."""
    results: dict[str, Any] = {"environment": environment(), "batches": BATCHES, "blocks": DEPTHS}
    results["plans"] = compile_forms()
    results["drift"] = measure_drift(clips, evaluation_clips)
    results["calibrated_on"], results["compared_on"] = clips, evaluation_clips
    print(f"wrote {write_results('int8_attention', results)}")


def compile_forms() -> dict[str, dict[str, Any]]:
    """Return what the plans say of attention, by form and compute capability."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load_tool("make_checkpoint").make_other("vivit_factorised", folder / "checkpoint", **DEPTHS)
        crops = write_crops(folder / "checkpoint", folder / "crops.safetensors")
        bundle = ve.export_model(
            folder / "checkpoint",
            folder / "out",
            precision="int8",
            targets=("onnx",),
            attention="pattern",
            check=False,
            calibration=CalibrationOptions((crops,)),
        )
        for form in ("fp16 attention", "int8 attention"):
            model = ir.load(bundle.model)
            places = find_attention(model)
            if form == "int8 attention":
                for place in places:
                    round_attention(model, place, *_HALF_STEPS, Precision.INT8)
            found[form] = {f"sm{sm}": _compile(model, folder / f"{form} {sm}", sm) for sm in SMS}
            print(form, found[form], flush=True)
    return found


def _compile(model: ir.Model, folder: Path, sm: int) -> dict[str, Any]:
    folder.mkdir()
    save_graph(model.clone(), folder)
    plan = compile_graph(model, folder, sm).plan
    return {
        "kernels": plan.kernels,
        "copies": plan.copies,
        "attention_dtypes": plan.attention_dtypes,
        "unfused_matmuls": plan.unfused_matmuls,
        "activation_bytes": plan.activation_bytes,
    }


def measure_drift(calibrate: int, evaluate: int) -> dict[str, dict[str, float | None]]:
    """Return the drift of the trained network's logits if attention alone is rounded, by type."""
    checkpoint = load_checkpoint(str(TRAINED))
    made = build_graph(
        checkpoint, precision=Precision.FP32, form="pattern", opset=21, input_mode="crops", outputs=("logits",)
    )
    model = made.model
    places = find_attention(model)
    ranges = _ranges(model.clone(), [str(v.name) for p in places for v in p.inputs], checkpoint, calibrate)
    crops = motion_clips(checkpoint, range(EVALUATION_SEED, EVALUATION_SEED + evaluate))
    expected = _run(model, crops)
    found: dict[str, dict[str, float | None]] = {}
    for precision in (Precision.INT8, Precision.FP8):
        rounded, largest = model.clone(), float(precision.dtype.max)
        for place in find_attention(rounded):
            amax = max(ranges[str(value.name)] for value in place.inputs)
            steps = np.array(amax / largest, np.float32), np.array(1 / largest, np.float32)
            round_attention(rounded, place, *steps, precision)
        drift = compare({"logits": expected}, {"logits": _run(rounded, crops)})
        found[str(precision)] = {name: getattr(drift, name) for name in ("top1", "max", "rms", "cosine")}
        print(precision, found[str(precision)], flush=True)
    return found


class Place:
    """One attention in its pattern form: the node of the softmax, and the two products around it."""

    def __init__(self, softmax: ir.Node) -> None:
        self.path = module_path(softmax)
        self.first, self.second = _before(softmax), _after(softmax)

    @property
    def inputs(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Q, K and V."""
        query, key, value = self.first.inputs[0], self.first.inputs[1], self.second.inputs[1]
        assert query is not None and key is not None and value is not None
        return query, key, value


def find_attention(model: ir.Model) -> list[Place]:
    """Return the attentions of the spatial stack that all tokens take part in: all but the last."""
    places = [Place(n) for n in model.graph if n.op_type == "Softmax" and str(n.name).startswith("spatial.")]
    return places[:-1]


def round_attention(model: ir.Model, place: Place, step: Any, softmax_step: Any, precision: Precision) -> None:
    """Quantize Q, K, V and the softmax of an attention, in place; the steps are scales in the type around them."""
    zero = new_constant(model.graph, f"{place.path}.zero_point", np.zeros((), precision.dtype.numpy()))
    steps = new_constant(model.graph, f"{place.path}.step", step)
    softmax_steps = new_constant(model.graph, f"{place.path}.softmax_step", softmax_step)
    for node, index, scale in (
        (place.first, 0, steps),
        (place.first, 1, steps),
        (place.second, 1, steps),
        (place.second, 0, softmax_steps),
    ):
        value = node.inputs[index]
        assert value is not None
        result = quantize_value(node, value, (scale, zero), f"{node.name}.{index}", precision)
        if value.dtype is not None:
            result.dtype = value.dtype
        node.replace_input_with(index, result)


def _before(softmax: ir.Node) -> ir.Node:
    """Return the product whose result, perhaps cast, a softmax reads."""
    node = softmax.inputs[0].producer()  # type: ignore[union-attr]
    while node is not None and node.op_type != "MatMul":
        node = node.inputs[0].producer()  # type: ignore[union-attr]
    assert node is not None
    return node


def _after(softmax: ir.Node) -> ir.Node:
    """Return the product that reads a softmax, perhaps cast."""
    node = next(iter(softmax.outputs[0].uses())).node
    while node.op_type != "MatMul":
        node = next(iter(node.outputs[0].uses())).node
    return node


def _ranges(model: ir.Model, names: list[str], checkpoint: Any, count: int) -> dict[str, float]:
    """Return the largest magnitude that each value takes on rendered clips."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    model.graph.outputs.extend(values[name] for name in names)
    crops = motion_clips(checkpoint, range(CALIBRATION_SEED, CALIBRATION_SEED + count))
    outputs = OnnxRuntimeSession(ir.to_proto(model).SerializeToString()).run(crops)
    return {name: float(np.abs(outputs[name]).max()) for name in names}


def _run(model: ir.Model, crops: Any) -> Any:
    return OnnxRuntimeSession(ir.to_proto(model).SerializeToString()).run(crops)["logits"]


if __name__ == "__main__":
    main()

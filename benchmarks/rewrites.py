"""Measure how the rewrites change the results: not at all in real arithmetic, and for the better in fp16.

    python tools/make_checkpoint.py /tmp/vivit-b
    python tools/outliers.py /tmp/vivit-b /tmp/vivit-b-outliers
    python tools/outliers.py demo /tmp/demo-outliers
    python benchmarks/rewrites.py /tmp/vivit-b /tmp/vivit-b-outliers demo /tmp/demo-outliers

For each checkpoint, on the same clip:

- *float64*: logits of Hugging Face's own network in PyTorch and of the rewritten graph, both evaluated in float64;
- *float32*: the same two as they ship in fp32, in ONNX Runtime;
- *fp16*: the drift of the plain and of the rewritten fp16 graph from eager fp32, each with the roundings
  that its types say (`emulate`); the plain one takes ``pixels``, ours ``crops``, as in ``plan.py``.

About 6 GB of memory for ViViT-B/16x2. Writes ``results/rewrites.json``.
"""

from __future__ import annotations

import copy
import gc
import math
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
import torch
from common import environment, write_results
from onnxscript.rewriter import pattern

from vivit_export.demo.motion import LABELS, render_clip
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.graph.build import build_graph
from vivit_export.export.graph.emulate import emulate_low_precision
from vivit_export.export.graph.rewrites import apply_rewrites, lower_attention
from vivit_export.export.graph.trace import trace
from vivit_export.precision import Precision
from vivit_export.rewrite import REWRITE_NAMES
from vivit_export.runtime import Preprocessor

OPSET = 23
Floats = npt.NDArray[np.floating[Any]]


@click.command()
@click.argument("checkpoints", nargs=-1, required=True)
@click.option("--clips", default=1, show_default=True, help="Synthetic clips to run.")
def main(checkpoints: tuple[str, ...], clips: int) -> None:
    """Measure each of CHECKPOINTS, folders or "demo"."""
    results: dict[str, Any] = {"environment": environment(), "clips": clips, "checkpoints": {}}
    for name in checkpoints:
        figures = measure(load_checkpoint(name), clips)
        results["checkpoints"][Path(name).name] = figures
        print(Path(name).name, figures)
    print(f"wrote {write_results('rewrites', results)}")


def measure(checkpoint: Checkpoint, num_clips: int) -> dict[str, Any]:
    """Compare the plain graph of one checkpoint with the rewritten one in three arithmetics."""
    crops = make_crops(checkpoint, num_clips)
    pixels = Preprocessor(checkpoint.clip, checkpoint.preprocess).to_pixels(crops)
    eager = checkpoint.run_eager(pixels)["logits"]
    exact = [hugging_face_in_float64(checkpoint, pixels), graph_in_float64(checkpoint, pixels)]
    single = [as_shipped(checkpoint, Precision.FP32, skip, pixels, "pixels") for skip in (REWRITE_NAMES, ())]
    plain = as_shipped(checkpoint, Precision.FP16, REWRITE_NAMES, pixels, "pixels")
    ours = as_shipped(checkpoint, Precision.FP16, (), crops, "crops")
    return {
        "logit_range": float(np.ptp(eager)),
        "float64_max_difference": largest(*exact),
        "float32_max_difference": largest(*single),
        "fp16": {"plain": drift(plain, exact[0]), "rewritten": drift(ours, exact[0])},
    }


def make_crops(checkpoint: Checkpoint, num_clips: int) -> npt.NDArray[np.uint8]:
    """Moving shapes of the checkpoint's size: (clips, T, H, W, 3)."""
    clip = checkpoint.clip
    size = {"num_frames": clip.num_frames, "height": clip.height, "width": clip.width}
    return np.stack([render_clip(LABELS[i % len(LABELS)], seed=4_000_000 + i, **size) for i in range(num_clips)])


@torch.inference_mode()
def hugging_face_in_float64(checkpoint: Checkpoint, pixels: Floats) -> Floats:
    """Logits of the network itself; by SDPA, as transformers' own attention takes its softmax in float32."""
    network: Any = copy.deepcopy(checkpoint.network).double()
    network.set_attn_implementation("sdpa")
    return np.concatenate([network(torch.from_numpy(clip[None]).double()).logits.numpy() for clip in pixels])


def graph_in_float64(checkpoint: Checkpoint, pixels: Floats) -> Floats:
    """Logits of the rewritten graph, its weights taken to float64 before anything is rewritten."""
    model = trace(checkpoint, ("logits",))
    to_float64(model)
    apply_rewrites(model, Precision.FP16)
    lower_attention(model)
    to_float64(model)  # what the lowering typed float32
    pattern.RewriteRule(_gelu, _gelu_in_float64).apply_to_model(model)
    return run(model, pixels.astype(np.float64))


def _gelu(op: Any, x: Any) -> Any:
    return op.Gelu(x, approximate="tanh")


def _gelu_in_float64(op: Any, x: Any) -> Any:
    """ONNX Runtime's own has constants in float32, which cost 1e-8 here."""

    def constant(value: float) -> Any:
        return op.Constant(value=ir.tensor(np.array(value, np.float64)))

    inner = op.Add(x, op.Mul(constant(0.044715), op.Mul(x, op.Mul(x, x))))
    tanh = op.Tanh(op.Mul(constant(math.sqrt(2 / math.pi)), inner))
    return op.Mul(op.Mul(constant(0.5), x), op.Add(constant(1.0), tanh))


def to_float64(model: ir.Model) -> None:
    """Retype every float32 tensor of a graph without Casts, in place."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for value in [*values, *(v for node in model.graph for v in node.outputs)]:
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.DOUBLE)
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float64), name=value.name)


def as_shipped(
    checkpoint: Checkpoint, precision: Precision, skip: tuple[str, ...], feed: Any, input_mode: str
) -> Floats:
    """Logits of the graph that an export would write; low precision is emulated."""
    model = build_graph(
        checkpoint,
        precision=Precision(precision),
        form="pattern",
        opset=OPSET,
        input_mode=input_mode,
        outputs=("logits",),
        skip_rewrites=skip,
    ).model
    return run(model if precision == "fp32" else emulate_low_precision(model), feed)


def run(model: ir.Model, feed: Any) -> Floats:
    """Run a graph clip by clip in ONNX Runtime, from a file as its weights may exceed what a protobuf holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="data", size_threshold_bytes=1024)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        logits = [session.run(["logits"], {name: clip[None]})[0] for clip in feed]
    del session, model
    gc.collect()
    return np.concatenate(logits)


def drift(logits: Floats, reference: Floats) -> dict[str, float]:
    """Largest and root mean square difference."""
    return {"max": largest(logits, reference), "rms": float(np.sqrt(np.mean((logits - reference) ** 2)))}


def largest(a: Floats, b: Floats) -> float:
    """Largest difference."""
    return float(np.abs(a - b).max())


if __name__ == "__main__":
    main()

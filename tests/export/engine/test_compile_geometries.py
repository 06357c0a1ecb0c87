"""Graphs of many shapes through the real compiler: attention fused, GEMMs in the type, seven kernels a block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import Checkpoints
from made_ranges import ranges

from vivit_export.bundle import MODEL
from vivit_export.bundle.engines import PlanSummary
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.engine.compile import EngineRequest, build_engine
from vivit_export.export.engine.plan import prove
from vivit_export.export.graph.build import Quantization, build_graph, rewrite_graph, save_graph
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision

LAYERS = 2
AROUND = 7
"""Kernels outside the blocks: pixels, patch GEMM, positions, two for the class token's own, last norm, head."""

GEOMETRIES: list[dict[str, Any]] = [
    {"hidden_size": 64},  # heads of 32
    {"hidden_size": 160},
    {"hidden_size": 256},
    {"hidden_size": 64, "num_attention_heads": 1},
    {"hidden_size": 64, "image_size": [16, 24]},
    {"hidden_size": 64, "num_frames": 8},
    {"hidden_size": 64, "qkv_bias": False},
    {"hidden_size": 64, "hidden_act": "gelu"},
    {"hidden_size": 64, "hidden_act": "relu"},
]


def compiled(
    checkpoint: Checkpoint,
    folder: Path,
    precision: Precision,
    batches: tuple[int, int, int] = (1, 4, 8),
    sms: tuple[int, ...] = (89,),
    **options: Any,
) -> PlanSummary:
    given: dict[str, Any] = {"form": "pattern", "opset": 23, "input_mode": "crops", **options}
    model = build_graph(checkpoint, precision=precision, outputs=("logits", "embedding"), **given).model
    save_graph(model, folder)
    source = model.graph.inputs[0]
    assert source.shape is not None
    shape = tuple(int(d) for d in source.shape[1:])  # type: ignore[arg-type]
    request = EngineRequest(Flavour.TENSORRT_RTX, folder / MODEL, str(source.name), shape, batches, sms)
    return build_engine(request, folder / "engine.plan", folder / "build.log").plan


@pytest.mark.needs_rtx
@pytest.mark.parametrize(("precision", "dtype"), [(Precision.FP16, "Half"), (Precision.BF16, "BFloat16")])
@pytest.mark.parametrize("fields", GEOMETRIES, ids=json.dumps)
def test_every_shape_compiles_as_promised(
    checkpoints: Checkpoints, tmp_path: Path, fields: dict[str, Any], precision: Precision, dtype: str
) -> None:
    checkpoint = checkpoints.load(num_hidden_layers=LAYERS, num_labels=8, **fields)
    plan = compiled(checkpoint, tmp_path, precision, sms=(89, 120) if fields == GEOMETRIES[0] else (89,))
    assert prove(plan, precision=precision, num_attention=LAYERS, num_gemms=4 * LAYERS) == [
        f"attention fused in {LAYERS} of {LAYERS} blocks ({dtype})",
        f"{4 * LAYERS} of {4 * LAYERS} encoder GEMMs in {dtype}",
        f"other GEMMs: 2 in {dtype}",
    ]
    assert plan.kernels <= AROUND + 7 * LAYERS
    assert plan.copies <= 3


@pytest.mark.needs_rtx
@pytest.mark.parametrize("fields", [{"hidden_size": 64}, {"hidden_size": 256}], ids=json.dumps)
def test_attention_as_an_op_compiles_too(checkpoints: Checkpoints, tmp_path: Path, fields: dict[str, Any]) -> None:
    """As an op, attention from the class token alone has no kernel in tensorrt-rtx 1.7.1: that one is a pattern."""
    checkpoint = checkpoints.load(num_hidden_layers=LAYERS, num_labels=8, **fields)
    plan = compiled(checkpoint, tmp_path, Precision.FP16, form="fused-op")
    assert (
        prove(plan, precision=Precision.FP16, num_attention=LAYERS, num_gemms=4 * LAYERS)[0]
        == "attention fused in 2 of 2 blocks (Half)"
    )


FIXED = [
    *((width, "fp16", 1, 89) for width in (128, 256, 512, 768)),
    (128, "fp16", 1, 75),
    (256, "bf16", 1, 120),
    (192, "fp32", 1, 89),
    (128, "int8", 1, 89),
    (768, "int8", 1, 89),
    (128, "fp8", 1, 89),
    (384, "fp16", 2, 89),
    (128, "int8", 2, 89),
]
"""Width, precision, the only batch, SM. At batch 1, one row is left after the last attention: other kernels run it."""


@pytest.mark.needs_rtx
@pytest.mark.parametrize(("width", "name", "batch", "sm"), FIXED)
def test_a_single_batch_compiles_as_promised(
    checkpoints: Checkpoints, tmp_path: Path, width: int, name: str, batch: int, sm: int
) -> None:
    checkpoint = checkpoints.load(
        num_hidden_layers=LAYERS,
        num_labels=8,
        hidden_size=width,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
    )
    precision = Precision(name)
    quantization = None
    if precision.quantized:
        rewritten = rewrite_graph(checkpoint, ("logits", "embedding"), precision)
        quantization = Quantization(rewritten, ranges(precision))
    batches = (batch, batch, batch)
    plan = compiled(checkpoint, tmp_path, precision, batches, (sm,), quantization=quantization)
    _, gemms, others = prove(plan, precision=precision, num_attention=LAYERS, num_gemms=4 * LAYERS, single_query=1)
    assert gemms == f"{4 * LAYERS} of {4 * LAYERS} encoder GEMMs in {precision.plan_type}"
    assert others == f"other GEMMs: 2 in {precision.base.plan_type}"
    executed = [node for gemm in plan.gemm_layers if gemm.encoder for node in gemm.nodes if node.endswith("/MatMul")]
    assert sorted(executed) == sorted(
        f"layers.{i}.{linear}/MatMul"
        for i in range(LAYERS)
        for linear in (*(f"attention.{x}_proj" for x in "qkvo"), "mlp.fc1", "mlp.fc2")
    )

"""``--fp8-attention``: where its Q/DQ nodes stand, what they compute, and that the compiler's kernel reads FP8."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints
from graphs import inferred_types, ops, parse, run_ort
from made_clips import blurred
from made_ranges import BLOCKS, DEEP, LAYERS, ranges, with_attention
from safetensors.numpy import save_file

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.errors import CalibrationError, PrecisionError
from vivit_export.export.calibrate import calibration_graph, obtain_ranges
from vivit_export.export.engine.plan import prove
from vivit_export.export.graph.build import Graph, Quantization, build_graph, rewrite_graph
from vivit_export.export.graph.quantize_attention import name_attention_inputs, quantize_attention
from vivit_export.export.graph.rewrites import lower_attention
from vivit_export.export.trials import Trials
from vivit_export.precision import Precision
from vivit_export.progress import Silent

Float32 = npt.NDArray[np.float32]


def build(checkpoints: Checkpoints, **quantization: Any) -> Graph:
    checkpoint = checkpoints.load(**DEEP)
    rewritten = rewrite_graph(checkpoint, ("logits", "embedding"), Precision.INT8)
    return build_graph(
        checkpoint,
        precision=Precision.FP8,
        form="pattern",
        opset=20,
        input_mode="pixels",
        outputs=("logits", "embedding"),
        quantization=Quantization(rewritten, with_attention(), attention=True, **quantization),
    )


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    path = tmp_path / "crops.safetensors"
    save_file({"frames": blurred(np.random.default_rng(0), 40, (4, 16, 16, 3))}, path)
    return path


# --- the graph ---------------------------------------------------------------------------------


def test_all_four_tensors_of_each_block_are_quantized(checkpoints: Checkpoints) -> None:
    made = build(checkpoints, keep=tuple(LAYERS))
    names = {str(node.name).removesuffix("/Quantize") for node in ops(made.model, "QuantizeLinear")}
    assert names == {f"{block}.{kind}" for block in BLOCKS for kind in ("query", "key", "value", "softmax")}
    for node in ops(made.model, "MatMul"):
        if str(node.name).endswith(("/QK", "/PV")):
            assert all(v is not None and v.producer().op_type == "DequantizeLinear" for v in node.inputs)  # type: ignore[union-attr]
    assert made.facts.quantization is not None
    told = made.facts.quantization.attention
    assert told is not None
    assert (told.type, told.amax) == ("float8_e4m3fn", dict.fromkeys(BLOCKS, 3.0))
    assert told.softmax_scale == pytest.approx(1 / 448, rel=1e-3)


def test_the_graph_stays_strongly_typed(checkpoints: Checkpoints) -> None:
    model = build(checkpoints).model
    types = inferred_types(model)
    for node in model.graph:
        for value in node.outputs:
            assert value.dtype is not None
            assert types[str(value.name)] == value.dtype.numpy(), node.name
    for node in ops(model, "DequantizeLinear"):
        assert node.outputs[0].dtype == ir.DataType.FLOAT16


@pytest.mark.needs_onnxruntime
def test_it_computes_attention_on_the_values_that_fp8_has() -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 23]>
        g (float[3, 2, 5, 8] qkv) => (float[1, 2, 5, 8] y) {
            q, k, v = Split <axis = 0, num_outputs = 3> (qkv)
            a = Attention <scale = 1.0> (q, k, v)
            y = Identity (a)
        }""")
    ops(model, "Attention")[0].name = "blk/Attention"
    qkv = np.random.default_rng(1).standard_normal((3, 2, 5, 8)).astype(np.float32) * np.float32(0.8)
    lower_attention(model)
    exact = run_ort(model, qkv)["y"]
    quantize_attention(model, dataclasses.replace(with_attention(), attention={"blk": 4.0}))

    def fp8(values: Float32, scale: float) -> Float32:
        clipped = np.clip(values / np.float32(scale), -448, 448)
        return np.asarray(clipped.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(scale))

    q, k, v = fp8(qkv, float(np.nextafter(np.float16(4 / 448), np.float16(1))))[:, None]
    scores = q @ k.swapaxes(-1, -2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = fp8(weights / weights.sum(-1, keepdims=True), float(np.float16(1 / 448)))
    found = run_ort(model, qkv)["y"]
    np.testing.assert_allclose(found, weights @ v, atol=1e-5)
    assert 1e-3 < np.abs(found - exact).max() < 0.5


def test_a_block_without_a_range_is_named(checkpoints: Checkpoints) -> None:
    model = rewrite_graph(checkpoints.load(**DEEP), ("logits",), Precision.INT8).model
    lower_attention(model)
    with pytest.raises(CalibrationError, match=r"nothing about layers\.0\.attention: .*; calibrate with it"):
        quantize_attention(model.clone(), ranges(Precision.FP8))
    with pytest.raises(CalibrationError, match=r"layers\.0\.attention are zero on all 1 .* leave out fp8_attention"):
        quantize_attention(model.clone(), with_attention(0.0))


# --- its ranges --------------------------------------------------------------------------------


@pytest.mark.needs_onnxruntime
def test_a_range_is_that_of_all_three(checkpoints: Checkpoints, crops: Path, tmp_path: Path) -> None:
    checkpoint = checkpoints.load(**DEEP)
    rewritten = rewrite_graph(checkpoint, ("logits",), Precision.INT8)
    options = CalibrationOptions((crops,), method="minmax", cache=tmp_path / "cache")
    found = obtain_ranges(checkpoint, rewritten, checkpoint.clip, Precision.FP8, options, Silent(), attention=True)
    assert list(found.attention) == BLOCKS

    from safetensors.numpy import load_file

    model = rewritten.model.clone()
    names = name_attention_inputs(model)
    calibration_graph(checkpoint, model)
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    model.graph.outputs.extend(values[name] for name in names[BLOCKS[0]])
    outputs = run_ort(model, load_file(crops)["frames"])
    assert outputs[f"{BLOCKS[0]}.query"].shape == (40, 9, 32)
    largest = max(float(np.abs(outputs[name]).max()) for name in names[BLOCKS[0]])
    assert found.attention[BLOCKS[0]] == pytest.approx(largest, rel=1e-5)

    # Only what is quantized is observed, so the cache of one is none for the other.
    with pytest.raises(CalibrationError, match="holds a calibration of another set of tensors"):
        obtain_ranges(
            checkpoint,
            rewritten,
            checkpoint.clip,
            Precision.FP8,
            CalibrationOptions((crops,), cache=linears_only(checkpoint, rewritten, crops, tmp_path)),
            Silent(),
            attention=True,
        )


def linears_only(checkpoint: Any, rewritten: Any, crops: Path, folder: Path) -> Path:
    cache = folder / "linears"
    obtain_ranges(
        checkpoint, rewritten, checkpoint.clip, Precision.FP8, CalibrationOptions((crops,), cache=cache), Silent()
    )
    return cache


@pytest.mark.needs_onnxruntime
def test_ranges_of_an_export_serve_another_if_they_know_attention(
    checkpoints: Checkpoints, crops: Path, tmp_path: Path
) -> None:
    def export(name: str, calibration: CalibrationOptions, *, attention: bool) -> ve.Bundle:
        return ve.export_model(
            str(checkpoints.folder()),
            tmp_path / name,
            precision="fp8",
            targets=("onnx",),
            num_clips=2,
            gate="cosine=0.9,max=1,clear_flips=1,top1=0.01,rms=1",
            calibration=calibration,
            fp8_attention=attention,
        )

    first = export("first", CalibrationOptions((crops,)), attention=True)
    told = first.manifest.precision
    assert (told.attention, told.opset) == ("pattern", 20)
    stored = json.loads((first.path / "ranges.json").read_text())["attention"]
    assert told.quantization is not None and told.quantization.attention is not None
    assert told.quantization.attention.amax == stored
    again = export("again", CalibrationOptions(ranges=first.path / "ranges.json"), attention=True)
    assert (again.path / "bundle.json").read_bytes() == (first.path / "bundle.json").read_bytes()
    plain = export("plain", CalibrationOptions((crops,)), attention=False)
    assert plain.manifest.precision.quantization is not None
    assert plain.manifest.precision.quantization.attention is None
    with pytest.raises(CalibrationError, match="were calibrated without fp8_attention"):
        export("none", CalibrationOptions(ranges=plain.path / "ranges.json"), attention=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.needs_onnxruntime
def test_trials_feel_it(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints.load(**DEEP)
    rewritten = rewrite_graph(checkpoint, ("logits", "embedding"), Precision.INT8)
    crops = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)
    trials = Trials(checkpoint, rewritten, with_attention(), crops)
    assert trials.drift(LAYERS).rms == 0
    assert (trials.drift(LAYERS, attention=True).rms or 0) > 0


# --- the compiled plan -------------------------------------------------------------------------


@pytest.mark.needs_rtx
@pytest.mark.needs_onnxruntime
def test_the_kernel_reads_fp8(tmp_path: Path) -> None:
    bundle = ve.export_model(
        "demo",
        tmp_path / "out",
        precision="fp8",
        fp8_attention=True,
        calibration=CalibrationOptions(num_clips=32),
        targets=("tensorrt-rtx",),
    )
    (engine,) = bundle.engines.values()
    assert engine.proof[0] == "attention fused in 4 of 4 blocks (FP8)"
    plan = engine.plan
    assert plan.attention_dtypes == {"FP8": 4}
    with pytest.raises(PrecisionError, match="attention was promised in Half, and the plan has 4 in FP8"):
        prove(plan, precision=Precision.FP8, num_attention=4, num_gemms=16, attention_dtype="Half")

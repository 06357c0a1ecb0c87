"""The finished graph: what it says about itself is read from what was really made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from checkpoints import Checkpoints, assert_as_hugging_face, normal_pixels
from graphs import ops, parse, run_ort
from made_ranges import LAYERS as LAYERS_OF_RANGES
from made_ranges import ranges

from vivit_export.bundle.manifest import Declined
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.contract import Tensor
from vivit_export.errors import BuildError, PrecisionError
from vivit_export.export.calibrate import obtain_ranges
from vivit_export.export.checkpoint.load import load_checkpoint
from vivit_export.export.graph import build as graph_module
from vivit_export.export.graph.build import (
    Graph,
    Quantization,
    build_graph,
    layer_types,
    rewrite_graph,
    save_graph,
    signature,
)
from vivit_export.precision import Precision
from vivit_export.progress import Silent
from vivit_export.rewrite import REWRITE_NAMES

LAYERS = 2
LINEARS = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2")


@pytest.fixture
def build(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> Any:
    """build_graph on a tiny checkpoint, whose trace is made once for all tests."""

    def make(**changes: Any) -> Graph:
        fields = {"headless": True} if changes.pop("headless", False) else {"num_hidden_layers": LAYERS}
        checkpoint = checkpoints.load(**fields)
        outputs = ("logits", "embedding") if checkpoint.has_head else ("embedding",)
        monkeypatch.setattr(graph_module, "trace", lambda *_: checkpoints.trace(**fields))
        options = {"precision": Precision.FP32, "form": "fused-op", "opset": 23, "input_mode": "pixels", **changes}
        return build_graph(checkpoint, outputs=outputs, **options)

    return make


@pytest.mark.parametrize(
    ("precision", "weight"), [(Precision.FP32, "float"), (Precision.FP16, "float16"), (Precision.BF16, "bfloat16")]
)
def test_layers_are_listed_with_the_type_of_their_weights(build: Any, precision: Precision, weight: str) -> None:
    made = build(precision=precision, form="pattern")
    names = [f"layers.{i}.{linear}" for i in range(LAYERS) for linear in LINEARS]
    expected = dict.fromkeys(["embeddings.patch_embeddings.projection", *names, "classifier"], weight)
    assert made.facts.layers == expected
    assert layer_types(made.model) == expected


def test_facts_say_what_was_done(build: Any) -> None:
    facts = build(precision=Precision.FP16, form="pattern", opset=22, input_mode="crops").facts
    assert (facts.name, facts.attention, facts.opset) == ("fp16", "pattern", 22)
    assert facts.float32_ops == tuple(f"layers.{i}.attention/Softmax" for i in range(LAYERS))
    assert facts.largest_weight.magnitude > 1
    assert facts.pixels == "folded"
    matched = dict.fromkeys(("attention-scale", "key-bias", "value-bias", "query-bias"), LAYERS)
    assert facts.rewrites == {"patch-embedding": 1, "layernorm": 2 * LAYERS, **matched, "class-token": 1}
    in_float32 = build(precision=Precision.FP32).facts.rewrites
    assert in_float32 == {name: count for name, count in facts.rewrites.items() if name != "query-bias"}
    assert facts.declined == ()
    places = build(precision=Precision.FP16, skip_rewrites=("layernorm",)).facts.declined
    reason = "the LayerNormalization before it has an affine part"
    assert places[0] == Declined("query-bias", "layers.0.attention/Attention", reason)
    plain = build(skip_rewrites=REWRITE_NAMES).facts
    assert plain.rewrites == {}
    assert (plain.pixels, plain.float32_ops, plain.largest_weight) == (None, (), None)


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({"precision": Precision.FP32}, "arithmetic"),
        ({"precision": Precision.BF16}, "folded"),
        ({"precision": Precision.FP16, "skip_rewrites": ("patch-embedding",)}, "arithmetic"),
        ({"precision": Precision.FP16, "skip_rewrites": REWRITE_NAMES}, "arithmetic"),
    ],
)
def test_pixels_are_folded_below_float32_only(build: Any, options: dict[str, Any], form: str) -> None:
    made = build(input_mode="crops", **options)
    assert made.facts.pixels == form
    assert bool(ops(made.model, "Conv")) == ("patch-embedding" in options.get("skip_rewrites", ()))


def test_form_of_attention(build: Any) -> None:
    # Attention from the class token alone, the last one, is always a pattern.
    assert [len(ops(build(form="fused-op").model, op)) for op in ("Attention", "Softmax")] == [LAYERS - 1, 1]
    whole = build(form="fused-op", skip_rewrites=("class-token",)).model
    assert [len(ops(whole, op)) for op in ("Attention", "Softmax")] == [LAYERS, 0]
    assert [len(ops(build(form="pattern").model, op)) for op in ("Attention", "Softmax")] == [0, LAYERS]


def test_signature_is_the_graphs_own(build: Any) -> None:
    logits, embedding = Tensor("logits", "float32", ("batch", 5)), Tensor("embedding", "float32", ("batch", 32))
    pixels = signature(build(precision=Precision.BF16).model, "pixels", None)
    assert pixels.inputs == (Tensor("pixel_values", "float32", ("batch", 4, 3, 16, 16)),)
    assert pixels.outputs == (logits, embedding)
    crops = signature(build(precision=Precision.FP16, input_mode="crops").model, "crops", None)
    assert crops.inputs == (Tensor("frames", "uint8", ("batch", 4, 16, 16, 3)),)
    assert (crops.mode, crops.outputs) == ("crops", (logits, embedding))
    assert signature(build(headless=True).model, "pixels", None).outputs == (embedding,)


@pytest.mark.needs_onnxruntime
def test_saved_graph_runs(build: Any, checkpoints: Checkpoints, tmp_path: Path) -> None:
    save_graph(build(form="pattern", opset=20).model, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    pixels = normal_pixels(checkpoints.load(), 2)
    got = run_ort(ir.load(tmp_path / "model.onnx"), pixels)
    assert_as_hugging_face(got, checkpoints.folder(num_hidden_layers=LAYERS), pixels)


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_large_weights_go_beside_the_graph(
    build: Any, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    import onnxruntime

    whole, split = tmp_path / "whole", tmp_path / "split"
    for folder, limit in ((whole, 1 << 20), (split, 1 << 10)):
        folder.mkdir()
        monkeypatch.setattr(graph_module, "_EXTERNAL_BYTES", limit)
        save_graph(build(precision=precision).model, folder)
    assert sorted(p.name for p in split.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert (split / "model.onnx").stat().st_size < (whole / "model.onnx").stat().st_size / 2
    locations = {
        entry.value
        for weight in onnx.load(split / "model.onnx", load_external_data=False).graph.initializer
        for entry in weight.external_data
        if entry.key == "location"
    }
    assert locations == {"model.onnx.data"}, "a path of this machine would not survive the bundle's move"
    pixels = normal_pixels(checkpoints.load(), 1)
    runs = [
        onnxruntime.InferenceSession(f / "model.onnx", providers=["CPUExecutionProvider"]).run(
            None, {"pixel_values": pixels}
        )
        for f in (whole, split)
    ]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("traced_anew")
@pytest.mark.parametrize("limit", [1 << 20, 1 << 10], ids=["whole", "split"])
def test_saving_again_gives_the_same_bytes(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(graph_module, "_EXTERNAL_BYTES", limit)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_graph(build(precision=Precision.FP16, form="pattern", input_mode="crops").model, tmp_path / name)
    files = {name: {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b")}
    assert files["a"] == files["b"]


GELU_19 = '<ir_version: 10, opset_import: ["" : 19]> g (float[2] x) => (float[2] y) { y = Gelu(x) }'
MIXED = '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x, float16[2] z) => (float[2] y) { y = Add(x, z) }'


@pytest.mark.parametrize(("text", "said"), [(GELU_19, "Gelu"), (MIXED, "type")], ids=["no-such-op", "mixed-types"])
def test_an_invalid_graph_is_not_shipped(tmp_path: Path, text: str, said: str) -> None:
    model = ir.from_proto(onnx.parser.parse_model(text))
    with pytest.raises(BuildError, match=rf"^the exported graph is not valid ONNX: .*{said}.*") as caught:
        save_graph(model, tmp_path)
    assert "\n" not in str(caught.value)


def test_layers_without_a_stored_weight_are_not_listed() -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[2, 2] x) => (float[2, 2] y) { y = MatMul(x, x) }'
    assert layer_types(parse(text)) == {}


@pytest.mark.field_case("TensorRT 2564", "TensorRT 2466")
def test_a_rewrite_that_leaves_the_range_is_named(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(str(checkpoints.copy(tmp_path / "large")))
    layer: Any = checkpoint.network.get_submodule("vivit.layers.0")
    with torch.no_grad():
        layer.layernorm_after.weight[3] = 1e4
        layer.mlp.fc1.weight[5, 3] = 10.0
    options: dict[str, Any] = {"precision": Precision.FP16, "form": "pattern", "opset": 20, "input_mode": "crops"}
    with pytest.raises(BuildError) as caught:
        build_graph(checkpoint, outputs=("logits",), **options)
    assert str(caught.value) == (
        "weight layers.0.mlp.fc1.weight reaches 1e+05, beyond the fp16 range of 6.55e+04; use precision=bf16, "
        "or skip_rewrites=layernorm, which made it so large"
    )
    made = build_graph(checkpoint, outputs=("logits",), skip_rewrites=("layernorm",), **options)
    assert made.facts.largest_weight is not None
    assert made.facts.largest_weight.magnitude == 1e4
    with torch.no_grad():
        layer.mlp.fc1.weight[5, 3] = 1e5  # now the checkpoint's own
    with pytest.raises(BuildError, match=r"reaches 1e\+09, beyond .*; use precision=bf16$"):
        build_graph(checkpoint, outputs=("logits",), **options)


def renamed(model: ir.Model) -> ir.Model:
    """With names that transformers before 5.9 gives the modules, such as ``encoder.layer.0.output.dense``."""
    for node in model.graph:
        node.name = str(node.name).replace("layers.", "encoder.layer.", 1)
    return model


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_a_promise_that_reaches_no_layer_is_no_export(checkpoints: Checkpoints, precision: Precision) -> None:
    checkpoint = checkpoints.load(num_hidden_layers=LAYERS)
    rewritten = rewrite_graph(checkpoint, ("logits", "embedding"), precision)
    options: dict[str, Any] = {"precision": precision, "form": "pattern", "opset": 23, "input_mode": "crops"}
    outputs = ("logits", "embedding")

    def refusal(quantization: Quantization) -> str:
        with pytest.raises(PrecisionError) as caught:
            build_graph(checkpoint, outputs=outputs, quantization=quantization, **options)
        assert caught.value.exit_code == 6
        return str(caught.value)

    everything = Quantization(rewritten, ranges(precision), keep=tuple(LAYERS_OF_RANGES))
    assert refusal(everything) == (
        f"{precision} reached none of the graph's 14 layers, so nothing is exported; let fewer layers stay in fp16 "
        "(keep_fp16), or export fp16"
    )
    unknown = replace(rewritten, model=renamed(rewritten.model.clone()))
    assert refusal(Quantization(unknown, ranges(precision))).startswith(
        f"{precision} was promised for the 12 Linears of the encoder, but 0 were found in the graph"
    )
    half = rewritten.model.clone()
    for node in half.graph:
        node.name = str(node.name).replace("layers.1.", "encoder.layer.1.")
    assert "but 6 were found" in refusal(Quantization(replace(rewritten, model=half), ranges(precision)))


def test_nothing_is_calibrated_that_would_not_be_quantized(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints.load(num_hidden_layers=LAYERS)
    rewritten = rewrite_graph(checkpoint, ("logits",), Precision.INT8)
    rewritten = replace(rewritten, model=renamed(rewritten.model))
    with pytest.raises(PrecisionError, match="no Linears of an encoder to quantize, so there is nothing to calibrate"):
        obtain_ranges(checkpoint, rewritten, checkpoint.clip, Precision.INT8, CalibrationOptions(), Silent())

"""Nodes kept in float32: found by their names, strongly typed, and repairing an overflow with the wide arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from bundles import Bundles
from checkpoints import Checkpoints, normal_pixels
from graphs import inferred_types, run_ort
from made_ranges import DEEP, ranges
from overflowing import overflowing

import vivit_export as ve
from vivit_export.errors import BuildError, DriftError, UsageError
from vivit_export.export.graph import build as build_module
from vivit_export.export.graph.build import Graph, Quantization, Rewritten, build_graph, rewrite_graph
from vivit_export.export.graph.emulate import emulated_session
from vivit_export.export.graph.keeping import nodes_to_keep
from vivit_export.export.graph.lowering import lower_precision
from vivit_export.export.graph.rewrites import apply_rewrites, lower_attention
from vivit_export.precision import Precision
from vivit_export.report.text import summary_text

LOW = {Precision.FP16: np.dtype(np.float16)}
MLP = r"layers\.1\.mlp"


def model_of(checkpoints: Checkpoints) -> ir.Model:
    model = checkpoints.trace(**DEEP)
    apply_rewrites(model, Precision.FP16)
    lower_attention(model)
    return model


def paths(nodes: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(node.rpartition("/")[0] for node in nodes))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"^layers\.1\.mlp\.fc2$", ["layers.1.mlp.fc2"]),
        (r"fc1", ["layers.0.mlp.fc1", "layers.1.mlp.fc1"]),
        (r"1\.attention\.qkv$", [f"layers.1.attention.{n}_proj" for n in "qkv"]),
        (r"^layers\.0\.attention/QK$", ["layers.0.attention"]),
        (r"^classifier", ["classifier"]),
    ],
)
def test_a_node_goes_by_its_own_name_its_module_and_its_layer(
    checkpoints: Checkpoints, pattern: str, found: list[str]
) -> None:
    assert paths(nodes_to_keep(model_of(checkpoints), pattern)) == found


def test_nothing_and_everything_are_refused(checkpoints: Checkpoints) -> None:
    model = model_of(checkpoints)
    assert nodes_to_keep(model, None) == ()
    with pytest.raises(UsageError, match=r"^keep_fp32='layers.2' matches none of the graph's \d+ nodes; .* classifier"):
        nodes_to_keep(model, "layers.2")
    with pytest.raises(UsageError, match=r"matches every product of the graph.* or export precision=fp32$"):
        nodes_to_keep(model, ".")


@pytest.mark.parametrize("pattern", [MLP, r"layers\.0\.attention", "embeddings", "classifier", r"layers\.0/Add", "QK$"])
def test_kept_nodes_read_and_write_float32_and_the_others_do_not(checkpoints: Checkpoints, pattern: str) -> None:
    model = model_of(checkpoints)
    kept = set(nodes_to_keep(model, pattern))
    facts = lower_precision(model, Precision.FP16, keep=kept)
    types = inferred_types(model)
    for node in model.graph:
        floats = {types[str(v.name)] for v in (*node.inputs, *node.outputs) if v is not None and v.name in types}
        floats &= {np.dtype(np.float16), np.dtype(np.float32)}
        if node.op_type == "Cast":
            assert len(floats) == 2, node.name
        elif floats:
            wide = node.name in kept or node.op_type == "Softmax"
            assert floats == {np.dtype(np.float32 if wide else np.float16)}, node.name
    assert kept <= set(facts.float32_ops)
    names = [node.name for node in model.graph]
    assert len(names) == len(set(names))


def test_kept_weights_are_not_rounded_and_shared_ones_are_rounded_for_the_others(checkpoints: Checkpoints) -> None:
    full = model_of(checkpoints)
    model = full.clone()
    lower_precision(model, Precision.FP16, keep=nodes_to_keep(model, r"layers\.0\.attention/Scale|fc2"))
    for name in ("layers.0.mlp.fc2.weight", "layers.1.mlp.fc2.bias"):
        before, after = (m.graph.initializers[name].const_value for m in (full, model))
        assert before is not None and after is not None
        assert np.array_equal(before.numpy(), after.numpy())


def test_with_everything_but_one_node_kept_the_result_is_that_of_float32(checkpoints: Checkpoints) -> None:
    model, checkpoint = model_of(checkpoints), checkpoints.load(**DEEP)
    pixels = normal_pixels(checkpoint, 2)
    exact = run_ort(model, pixels)["logits"]
    lower_precision(model, Precision.FP16, keep=nodes_to_keep(model, r"^(?!classifier)"))
    found = run_ort(model, pixels)["logits"]
    assert 0 < np.abs(found - exact).max() < 2e-3 * np.ptp(exact)


def build(checkpoints: Checkpoints, precision: Precision, pattern: str | None, **options: Any) -> Graph:
    checkpoint = checkpoints.load(**DEEP)
    rewritten = rewrite_of(checkpoints, precision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "rewrite_graph", lambda *_: rewritten)
        return build_graph(
            checkpoint,
            precision=precision,
            form="pattern",
            opset=20,
            input_mode="crops",
            outputs=("logits", "embedding"),
            keep_fp32=pattern,
            **options,
        )


def rewrite_of(checkpoints: Checkpoints, precision: Precision) -> Rewritten:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "trace", lambda *_: checkpoints.trace(**DEEP))
        return rewrite_graph(checkpoints.load(**DEEP), ("logits", "embedding"), precision)


def test_the_facts_name_what_was_kept(checkpoints: Checkpoints) -> None:
    facts = build(checkpoints, Precision.FP16, MLP).facts
    assert paths(facts.kept_float32) == [f"layers.1.mlp.{n}" for n in ("fc1", "activation_fn", "fc2")]
    assert {name for name, kind in facts.layers.items() if kind == "float"} == {"layers.1.mlp.fc1", "layers.1.mlp.fc2"}
    assert set(facts.float32_ops) > set(facts.kept_float32)


def test_kept_embeddings_read_pixels_in_float32(checkpoints: Checkpoints) -> None:
    graph = build(checkpoints, Precision.FP16, "^embeddings")
    kinds = {str(v.name): v.dtype for node in graph.model.graph for v in node.outputs}
    first = next(node for node in graph.model.graph if str(node.name).startswith("embeddings"))
    assert first.inputs[0] is not None
    assert kinds[str(first.inputs[0].name)] == ir.DataType.FLOAT
    assert not any("preprocess" in name and kind == ir.DataType.FLOAT16 for name, kind in kinds.items())


def test_a_layer_with_a_kept_product_is_not_quantized(checkpoints: Checkpoints) -> None:
    rewritten = rewrite_of(checkpoints, Precision.INT8)
    facts = build(
        checkpoints,
        Precision.INT8,
        r"layers\.0\.mlp\.fc2|layers\.1\.attention\.q_proj",
        quantization=Quantization(rewritten, ranges(Precision.INT8), ("layers.1.mlp.fc1",)),
    ).facts
    assert facts.quantization is not None
    found = {name: layer.type for name, layer in facts.quantization.layers.items() if not layer.quantized}
    assert found == {
        "layers.0.mlp.fc2": "float32", "layers.1.attention.qkv": "float16", "layers.1.mlp.fc1": "float16"
    }  # fmt: skip
    assert facts.layers["layers.1.attention.q_proj"] == "float"
    assert facts.layers["layers.1.attention.k_proj"] == "float16"


@pytest.mark.needs_onnxruntime
def test_what_is_kept_repairs_an_overflow(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = overflowing(checkpoints, tmp_path / "overflowing", layer=1)
    options: dict[str, Any] = {"precision": "fp16", "targets": ("onnx",), "num_clips": 2}
    with pytest.raises(DriftError, match=r"nonfinite \d+ is above 0"):
        ve.export_model(str(folder), tmp_path / "out", **options)
    bundle = ve.export_model(str(folder), tmp_path / "out", **options, keep_fp32=MLP)
    assert bundle.manifest.checks is not None and bundle.manifest.checks.passed
    said = "  kept       in fp32: layers.1.mlp.fc1, layers.1.mlp.activation_fn, layers.1.mlp.fc2 (5 nodes)"
    assert said in summary_text(bundle).splitlines()
    with pytest.raises(UsageError, match="matches none"):
        ve.export_model(str(folder), tmp_path / "none", **options, keep_fp32="layers.7")
    assert not (tmp_path / "none").exists()


@pytest.mark.needs_onnxruntime
def test_a_session_serves_what_is_partly_kept(bundles: Bundles) -> None:
    kept = r"^layers\.0\.attention|^layers\.1\.attention/|^layers\.2\.mlp\.fc2"
    bundle = bundles.demo(check=True, num_clips=3, precision="fp16", keep_fp32=kept)
    report = ve.check(bundle)
    assert report.passed
    assert "3 MultiHeadAttention ops" in report.runs[0].engine


def test_a_weight_beyond_fp16_may_be_kept(checkpoints: Checkpoints) -> None:
    model = model_of(checkpoints)
    weight = model.graph.initializers["layers.1.mlp.fc1.weight"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * 1e6, name=weight.name)
    with pytest.raises(BuildError, match=r"layers\.1\.mlp\.fc1\.weight reaches .*"):
        lower_precision(model.clone(), Precision.FP16)
    lower_precision(model, Precision.FP16, keep=nodes_to_keep(model, MLP))


@pytest.mark.needs_onnxruntime
def test_the_emulation_does_not_round_what_is_kept(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints.load(**DEEP)
    pixels = normal_pixels(checkpoint, 1)
    exact = run_ort(model_of(checkpoints), pixels)["logits"]
    errors = []
    for pattern in (None, r"^(?!layers\.0)"):
        model = model_of(checkpoints)
        lower_precision(model, Precision.BF16, keep=nodes_to_keep(model, pattern))
        with emulated_session(model) as session:
            errors.append(float(np.abs(session.run(pixels)["logits"] - exact).max()))
    assert errors[1] < errors[0]

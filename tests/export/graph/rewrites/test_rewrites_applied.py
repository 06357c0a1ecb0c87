"""All rewrites, and each alone: in float64 the network computes the same function before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints, assert_as_hugging_face, normal_pixels
from graphs import ops, run_double, run_ort, serialize, to_double
from rewriting import (
    BIASES,
    DEEP,
    LAYERS,
    NETWORKS,
    PLACED,
    all_but,
    assert_same_function,
    constant,
    double_pixels,
    expected_counts,
    node_named,
    set_constant,
)

import vivit_export as ve
from vivit_export.bundle.manifest import Declined
from vivit_export.choices import AttentionForm
from vivit_export.errors import UsageError
from vivit_export.export.graph import rewrites
from vivit_export.export.graph.build import build_graph
from vivit_export.export.graph.rewrites import apply_rewrites
from vivit_export.export.options import ExportOptions
from vivit_export.precision import Precision
from vivit_export.progress import Silent
from vivit_export.report.text import summary_text
from vivit_export.rewrite import REWRITE_NAMES, Rewrite


def test_every_rewrite_has_a_function() -> None:
    assert set(rewrites._FUNCTIONS) == set(Rewrite)


@pytest.mark.parametrize("network", NETWORKS)
def test_all_together_are_exact(checkpoints: Checkpoints, network: str) -> None:
    fields = NETWORKS[network]
    checkpoint = checkpoints.load(**fields)
    before = to_double(checkpoints.trace(**fields))
    after = before.clone()
    # Without qkv_bias too: beta, folded, gives Q, K and V a bias.
    applied = apply_rewrites(after, Precision.FP16)
    assert applied.counts == expected_counts(checkpoint.num_layers)
    assert not applied.declined
    assert_same_function(before, after, double_pixels(checkpoint))


@pytest.mark.parametrize("name", PLACED)
@pytest.mark.parametrize("network", ["plain", "head-80", "no-qkv-bias"])
def test_each_alone_is_exact(checkpoints: Checkpoints, network: str, name: str) -> None:
    fields = NETWORKS[network]
    before = to_double(checkpoints.trace(**fields))
    after = before.clone()
    matched = apply_rewrites(after, Precision.FP16, all_but(name)).counts
    # The query bias goes only where LayerNormalization has no affine part and K and V no bias; and
    # without qkv_bias there is none before beta is folded.
    nothing = name == "query-bias" or (name in BIASES and network == "no-qkv-bias")
    assert matched == {name: 0 if nothing else expected_counts(LAYERS)[name]}
    assert_same_function(before, after, double_pixels(checkpoints.load(**fields)))


@pytest.mark.parametrize("skipped", PLACED)
def test_all_but_one_are_exact(checkpoints: Checkpoints, skipped: str) -> None:
    before = to_double(checkpoints.trace(**DEEP))
    after = before.clone()
    matched = apply_rewrites(after, Precision.FP16, (skipped,)).counts
    expected = expected_counts(LAYERS)
    del expected[skipped]
    if skipped in ("layernorm", "key-bias", "value-bias"):
        expected["query-bias"] = 0
    assert matched == expected
    assert_same_function(before, after, double_pixels(checkpoints.load(**DEEP)))


@pytest.mark.parametrize("fields", [DEEP, {"qkv_bias": False}])
def test_applied_twice_nothing_matches_the_second_time(checkpoints: Checkpoints, fields: dict[str, Any]) -> None:
    model = checkpoints.trace(**fields)
    apply_rewrites(model, Precision.FP16)
    before = serialize(model)
    assert apply_rewrites(model, Precision.FP16).counts == dict.fromkeys(PLACED, 0)
    assert serialize(model) == before


def test_skipping_all_leaves_the_graph_as_it_was(checkpoints: Checkpoints) -> None:
    model = checkpoints.trace()
    before = serialize(model)
    assert apply_rewrites(model, Precision.FP16, REWRITE_NAMES).counts == {}
    assert serialize(model) == before


def test_unknown_names_are_refused(checkpoints: Checkpoints) -> None:
    model = checkpoints.trace()
    before = serialize(model)
    with pytest.raises(UsageError, match="'kay-bias' is not one of patch-embedding, "):
        apply_rewrites(model, Precision.FP16, ("key-bias", "kay-bias"))
    assert serialize(model) == before
    with pytest.raises(UsageError, match="'kay-bias' is not one of patch-embedding, "):
        ExportOptions(skip_rewrites=("kay-bias",))


def test_the_checkpoint_is_not_modified(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints.load()
    before = {name: p.detach().clone() for name, p in checkpoint.network.named_parameters()}
    build_graph(checkpoint, precision=Precision.FP16, form="pattern", opset=20, input_mode="crops", outputs=("logits",))
    for name, parameter in checkpoint.network.named_parameters():
        assert parameter.equal(before[name]), name


def test_an_export_tells_what_was_declined(checkpoints: Checkpoints, tmp_path: Path) -> None:
    details: list[str] = []

    class Verbose(Silent):
        def detail(self, text: str) -> None:
            details.append(text)

    bundle = ve.export_model(
        str(checkpoints.folder()), tmp_path / "out", precision="fp16", targets=("onnx",), check=False,
        skip_rewrites=("layernorm",), progress=Verbose(),
    )  # fmt: skip
    node, reason = "layers.0.attention/Attention", "the LayerNormalization before it has an affine part"
    assert bundle.manifest.precision.declined == (Declined("query-bias", node, reason),)
    assert details == [f"unchanged: query-bias at {node}: {reason}"]
    assert f"  declined   query-bias at {node}: {reason}" in summary_text(bundle).splitlines()
    assert f"query-bias at {node}: {reason}" in (bundle.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("form", ["fused-op", "pattern"])
@pytest.mark.parametrize("network", ["plain", "head-80", "no-qkv-bias", "non-square"])
def test_float32_graph_computes_what_transformers_computes(
    checkpoints: Checkpoints, network: str, form: AttentionForm
) -> None:
    fields = NETWORKS[network]
    checkpoint = checkpoints.load(**fields)
    made = build_graph(
        checkpoint, precision=Precision.FP32, form=form, opset=23, input_mode="pixels", outputs=("logits", "embedding")
    )
    pixels = normal_pixels(checkpoint, 3)
    assert_as_hugging_face(run_ort(made.model, pixels), checkpoints.folder(**fields), pixels)


def with_large_biases(model: ir.Model) -> None:
    for name in [str(n) for n in model.graph.initializers]:
        if name.endswith("_proj.bias") or ("layernorm_" in name and name.endswith(".bias")):
            set_constant(model, name, 50 * constant(model, name))


def with_outlier_channels(model: ir.Model) -> None:
    """Gammas x30 on a few channels, the next weights divided: the same function."""
    for i in range(LAYERS):
        for norm, linears in (
            ("layernorm_before", ("attention.q_proj", "attention.k_proj", "attention.v_proj")),
            ("layernorm_after", ("mlp.fc1",)),
        ):
            factor = np.ones(32)
            factor[[3, 17, 30]] = 30
            for part in ("weight", "bias"):
                name = f"layers.{i}.{norm}.{part}"
                set_constant(model, name, factor * constant(model, name))
            for linear in linears:
                value = node_named(model, f"layers.{i}.{linear}/MatMul").inputs[1]
                assert value is not None
                set_constant(model, str(value.name), constant(model, str(value.name)) / factor[:, None])


@pytest.mark.parametrize("name", [*PLACED, "all"])
@pytest.mark.parametrize("change", [with_large_biases, with_outlier_channels])
def test_large_values_do_not_make_them_inexact(
    checkpoints: Checkpoints, change: Callable[[ir.Model], None], name: str
) -> None:
    plain = to_double(checkpoints.trace(**DEEP))
    before = plain.clone()
    change(before)
    after = before.clone()
    apply_rewrites(after, Precision.FP16, all_but(name))
    pixels = double_pixels(checkpoints.load(**DEEP))
    assert_same_function(before, after, pixels)
    unchanged, changed = (run_double(model, pixels)["logits"] for model in (plain, before))
    same = change is with_outlier_channels
    assert np.allclose(unchanged, changed, rtol=0, atol=1e-10) == same, "the change itself must be what it says"


def share(model: ir.Model, *readers: tuple[str, int]) -> None:
    """Let all these inputs (node, index) read the constant of the first."""
    first = node_named(model, readers[0][0]).inputs[readers[0][1]]
    for name, index in readers[1:]:
        node_named(model, name).replace_input_with(index, first)


def q_k_and_v_of_a_block(model: ir.Model) -> None:
    for op in ("MatMul", "Add"):
        share(model, *((f"layers.0.attention.{linear}_proj/{op}", 1) for linear in "qkv"))


def blocks(model: ir.Model) -> None:
    for linear in ("q_proj", "k_proj", "v_proj", "o_proj"):
        for op in ("MatMul", "Add"):
            share(model, *((f"layers.{i}.attention.{linear}/{op}", 1) for i in range(LAYERS)))


def norms(model: ir.Model) -> None:
    names = [str(node.name) for node in ops(model, "LayerNormalization")]
    for index in (1, 2):
        share(model, *((name, index) for name in names))


def value_and_output(model: ir.Model) -> None:
    for op in ("MatMul", "Add"):
        share(model, *((f"layers.1.attention.{linear}_proj/{op}", 1) for linear in "vo"))


@pytest.mark.parametrize("name", [*PLACED, "all"])
@pytest.mark.parametrize("change", [q_k_and_v_of_a_block, blocks, norms, value_and_output])
def test_shared_weights_are_not_corrupted(
    checkpoints: Checkpoints, change: Callable[[ir.Model], None], name: str
) -> None:
    before = to_double(checkpoints.trace(**DEEP))
    change(before)
    after = before.clone()
    matched = apply_rewrites(after, Precision.FP16, all_but(name)).counts
    assert matched == expected_counts(LAYERS) if name == "all" else matched[name] or name == "query-bias"
    assert_same_function(before, after, double_pixels(checkpoints.load(**DEEP)))

"""What holds for every family besides ViViT, which most other tests use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checkpoints import normal_pixels
from family_checkpoints import CASES, expected_logits, loaded, traced
from graphs import ops, to_double
from rewriting import assert_same_function, double_pixels

from vivit_export.export.checkpoint.tapped_network import run_tapped
from vivit_export.export.graph.quantize import find_groups
from vivit_export.export.graph.rewrites import apply_rewrites
from vivit_export.export.graph.taps import find_steps
from vivit_export.precision import Precision
from vivit_export.rewrite import merged_linears

HEADLESS = ("videomae", "videomae-first-token", "timesformer", "encoder", "self-attention", "vjepa2")


@pytest.mark.parametrize("case", CASES)
def test_the_anatomy_is_that_of_the_network(case: str) -> None:
    checkpoint = loaded(case)
    anatomy, prefix = checkpoint.anatomy, f"{checkpoint.adapter.family.base}."
    inside = {
        name.removeprefix(prefix): module
        for name, module in checkpoint.network.named_modules()
        if anatomy.in_block(name.removeprefix(prefix))
    }
    merged = 2 * sum(name.endswith(".qkv") for name in inside)  # one Linear that counts as three
    assert sum(isinstance(m, torch.nn.Linear) for m in inside.values()) + merged == anatomy.num_linears
    assert sum(isinstance(m, torch.nn.LayerNorm) for m in inside.values()) == anatomy.num_norms
    for stack in anatomy.stacks:
        assert f"{stack.path}.{stack.blocks - 1}" in inside
        assert f"{stack.path}.{stack.blocks}" not in inside
        assert all(f"{stack.path}.0.{attention.path}" in inside for attention in stack.attentions)


@pytest.mark.parametrize("case", CASES)
def test_attention_sees_what_the_anatomy_says(case: str) -> None:
    anatomy = loaded(case).anatomy
    expected = {
        f"{stack.path}.{i}.{attention.path}": (attention.sequences, attention.tokens)
        for stack in anatomy.stacks
        for i in range(stack.blocks)
        for attention in stack.attentions
    }
    found = {}
    for node in ops(traced(case), "Attention"):
        shape = node.inputs[0].shape  # type: ignore[union-attr]
        assert shape is not None
        batch = str(shape[0]).removesuffix("*batch").replace("batch", "1")
        found[str(node.name).rpartition("/")[0]] = (int(batch), shape[2])
    assert found == expected


@pytest.mark.parametrize("case", CASES)
def test_eager_results_are_those_of_transformers(case: str) -> None:
    checkpoint, expected = loaded(case), expected_logits(case)
    found = checkpoint.run_eager(normal_pixels(checkpoint, 2))["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.ptp(expected))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_the_rewrites_change_no_result(case: str, precision: Precision) -> None:
    before = to_double(traced(case))
    after = before.clone()
    apply_rewrites(after, precision)
    assert_same_function(before, after, double_pixels(loaded(case)), of_range=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_all_linears_of_the_blocks_are_found(case: str) -> None:
    checkpoint, model = loaded(case), traced(case)
    applied = apply_rewrites(model, Precision.INT8)
    found = [linear for place in find_groups(model, checkpoint.anatomy) for linear in place.group.linears]
    assert len(found) == checkpoint.anatomy.num_linears - merged_linears(applied.counts)


@pytest.mark.parametrize(
    ("case", "headless"), [*((case, False) for case in CASES), *((case, True) for case in HEADLESS)]
)
def test_the_taps_of_the_graph_are_those_of_the_network(case: str, headless: bool) -> None:
    checkpoint, model = loaded(case, headless=headless), traced(case, headless=headless)
    apply_rewrites(model, Precision.FP32)
    steps = find_steps(model, checkpoint.taps)
    pixels = normal_pixels(checkpoint, 1)
    taps, _ = run_tapped(checkpoint, pixels, Precision.FP32)
    assert len(steps) == len(taps)
    names = {str(step.value.name): step for step in steps}
    assert len(names) == len(steps)
    for step, tap in zip(steps, taps, strict=True):
        shape = step.value.shape
        assert shape is not None and len(shape) == tap.ndim, step.name
    weighted = {str(n.name) for n in model.graph if n.op_type in ("MatMul", "Gemm", "Conv")}
    assert weighted <= {str(node.name) for step in steps for node in step.nodes}

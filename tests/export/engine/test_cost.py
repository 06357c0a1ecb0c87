"""The rating of a plan: its sizes against what the network does, and its order for layers made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import Bundles

from vivit_export.anatomy import Anatomy, Attention, Stack
from vivit_export.export.engine.cost import BYTES, FLOPS, LAUNCH, _Sizes, plan_seconds
from vivit_export.export.engine.layers import Layer, PlanTensor
from vivit_export.export.engine.table import read_plan
from vivit_export.precision import Precision


def tensor(text: str) -> PlanTensor:
    return PlanTensor.from_text(f"{text} t")


def gemm(dtype: str, rows: str, depth: int, width: int) -> Layer:
    """One product; ``rows`` may be open."""
    source, weights, result = (
        tensor(f"{dtype}[{side}]") for side in (f"{rows},{depth}", f"{depth},{width}", f"{rows},{width}")
    )
    return Layer("g", "gemm", (source,), (weights,), (result,), "", ("layers.0.mlp.fc1/MatMul",))


ANATOMY = Anatomy((Stack("layers", 1, (Attention("attention", 100),), 6),), 4, 100, "class-token", 0)


@pytest.mark.parametrize("dtype", ["Float", "Half", "Int8", "FP8"])
def test_a_large_product_takes_as_long_as_its_arithmetic(dtype: str) -> None:
    seconds = plan_seconds([gemm(dtype, "-1", 4096, 4096)], ANATOMY, 1000)
    assert seconds == pytest.approx(LAUNCH + 2 * 1000 * 100 * 4096 * 4096 / FLOPS[dtype])


def test_a_product_of_few_rows_takes_as_long_as_its_bytes() -> None:
    read_and_written = 2 * (8 * 4096 + 4096 * 4096 + 8 * 4096)
    assert plan_seconds([gemm("Half", "8", 4096, 4096)], ANATOMY, 1) == pytest.approx(LAUNCH + read_and_written / BYTES)


def test_attention_has_what_the_linears_leave_of_the_operations() -> None:
    q, k = tensor("Half[-1,100,64]"), tensor("Half[-1,64,100]")
    fused = Layer("fmha", "kgen", (q, k, q), (), (q,), "", ())
    with_flops = Anatomy(ANATOMY.stacks, 4, 100, "class-token", 10**12)
    one, other = (plan_seconds([fused], anatomy, 3) for anatomy in (ANATOMY, with_flops))
    assert one == pytest.approx(LAUNCH + 2 * 4 * (3 * 4 * 100 * 64) / BYTES)  # all heads of three clips
    assert other == pytest.approx(LAUNCH + 3e12 / FLOPS["Half"])


def test_host_layers_are_free_and_a_bias_multiplies_nothing() -> None:
    shape = Layer("s", "shape_call", (tensor("Int64[1]"),), (), (), "", ())
    assert plan_seconds([shape], ANATOMY, 1) == 0
    layer = gemm("Half", "-1", 128, 128)
    biased = Layer("g", "gemm", layer.inputs, (*layer.constants, tensor("Half[1,128]")), layer.outputs, "", layer.nodes)
    assert _Sizes(ANATOMY, 2).gemm_flops(biased) == _Sizes(ANATOMY, 2).gemm_flops(layer) == 2 * 200 * 128 * 128


@pytest.mark.needs_rtx
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_products_of_a_real_plan_are_those_of_the_network(bundles: Bundles, precision: Precision) -> None:
    """The plan does less in the last block, whose queries are the class token alone, and embeds the pixels besides."""
    options: dict[str, Any] = {"targets": ("tensorrt-rtx",), "sms": (89,), "attention": "pattern"}
    bundle = bundles.demo(precision=str(precision), **options)
    (engine,) = bundle.engines
    layers, anatomy = read_plan(bundle, engine).layers, bundle.manifest.model.anatomy
    sizes = _Sizes(anatomy, 1)
    found = sum(sizes.gemm_flops(layer) for layer in layers if layer.role == "gemm")
    hidden, inner, blocks, tokens = 128, 256, 4, anatomy.tokens
    linears = 2 * blocks * tokens * (4 * hidden**2 + 2 * hidden * inner)
    assert 0.9 < found / linears < 1.2

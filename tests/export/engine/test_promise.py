"""What a plan must show where layers were kept in a wider type: exactly these in it, and all others as before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import Bundles

import vivit_export as ve
from vivit_export.bundle import Bundle
from vivit_export.bundle.manifest import ClipsRecord, PrecisionRecord, QuantizationRecord, QuantizedLayer
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.errors import PrecisionError
from vivit_export.export.engine.plan import prove
from vivit_export.export.engine.promise import kept_attentions, kept_products, promised_linears
from vivit_export.precision import Precision

PATHS = ("layers.0.mlp.fc1", "layers.0.mlp.fc2")
FC1, FC2, HEAD = "layers.0.mlp.fc1/MatMul", "layers.0.mlp.fc2/MatMul", "classifier/Gemm"


def record(kept: tuple[str, ...] = (), precision: Precision = Precision.FP16, **fields: Any) -> PrecisionRecord:
    layers = dict.fromkeys((*PATHS, "classifier"), "float16")
    return PrecisionRecord(precision, "pattern", 20, layers, kept_float32=kept, **fields)


def test_without_exceptions_all_of_the_encoder_is_promised() -> None:
    assert promised_linears(record()) == []
    assert kept_products(record()) == {}
    assert kept_attentions(record()) == []


def test_what_was_kept_is_promised_in_its_own_type() -> None:
    kept = record((FC1, "layers.0.mlp.fc1/Add", "layers.0.attention/QK", "layers.0.attention/PV", "layers.0/Add"))
    assert promised_linears(kept) == [FC2]
    assert kept_products(kept) == {FC1: Precision.FP32}
    assert kept_attentions(kept) == ["layers.0.attention"]


def test_a_kept_head_leaves_the_whole_encoder_promised() -> None:
    kept = record((HEAD,))
    assert promised_linears(kept) == []
    assert kept_products(kept) == {HEAD: Precision.FP32}


def test_layers_without_codes_are_promised_in_the_type_around_the_codes_or_in_float32() -> None:
    layers = {
        "layers.0.mlp.fc1": QuantizedLayer("float16", PATHS[:1]),
        "layers.0.mlp.fc2": QuantizedLayer("float32", PATHS[1:]),
    }
    quantization = QuantizationRecord("mse", ClipsRecord("mine", 1), layers)
    kept = record((FC2,), Precision.INT8, quantization=quantization)
    assert kept_products(kept) == {FC1: Precision.FP16, FC2: Precision.FP32}


# --- a real engine -----------------------------------------------------------------------------

KEPT = r"^layers\.1\.mlp|^layers\.2\.attention|^classifier"


@pytest.fixture(scope="module")
def built(bundles: Bundles) -> Bundle:
    return bundles.demo(precision="fp16", targets=("tensorrt-rtx",), sms=(89,), keep_fp32=KEPT)


def dtypes(bundle: Bundle) -> Mapping[str, str]:
    (engine,) = bundle.engines.values()
    return {node: gemm.dtype for gemm in engine.plan.gemm_layers for node in gemm.nodes}


@pytest.mark.needs_rtx
def test_the_plan_has_what_was_kept_in_float_and_all_else_in_half(built: Bundle) -> None:
    found = dtypes(built)
    wide = {f"layers.1.mlp.{n}/MatMul" for n in ("fc1", "fc2")} | {"classifier/Gemm"}
    wide |= {f"layers.2.attention.{n}_proj/MatMul" for n in "qkvo"}
    products = {f"layers.{i}.attention.{n}_proj/MatMul" for i in range(4) for n in "qkvo"}
    products |= {f"layers.{i}.mlp.{n}/MatMul" for i in range(4) for n in ("fc1", "fc2")} | {"classifier/Gemm"}
    linears = {name: found[name] for name in products}
    assert {name for name, dtype in linears.items() if dtype == "Float"} == wide
    assert set(linears.values()) == {"Float", "Half"}
    assert built.manifest.precision.layers["layers.1.mlp.fc1"] == "float"
    (engine,) = built.engines.values()
    assert (
        engine.proof[0] == "attention fused in 3 of 4 blocks (Half); 1 kept in fp32, for which no fused kernel exists"
    )
    assert "kept: " in engine.proof[2]


@pytest.mark.needs_rtx
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kept": {}, "linears": []}, r"4 of 16 encoder GEMMs run in Float instead of Half"),
        ({"kept": {"layers.0.mlp.fc1/MatMul": Precision.FP32}}, r"in Half, which was to be kept in Float"),
        ({"kept": {"layers.9.mlp.fc1/MatMul": Precision.FP32}}, r"no GEMM for layers\.9\.mlp\.fc1/MatMul, which"),
        ({"kept_attention": 0}, r"attention fused in 3 of 4 blocks"),
    ],
)
def test_nothing_but_the_named_exceptions_is_accepted(built: Bundle, change: dict[str, Any], said: str) -> None:
    (engine,) = built.engines.values()
    facts = built.manifest.precision
    given: dict[str, Any] = {"linears": promised_linears(facts), "kept": kept_products(facts), "kept_attention": 1}
    options: dict[str, Any] = {"precision": Precision.FP16, "num_attention": 4, "num_gemms": 16, "single_query": 1}
    prove(engine.plan, **given, **options)
    if "kept_attention" in change:
        options["single_query"] = 0
    with pytest.raises(PrecisionError, match=said):
        prove(engine.plan, **{**given, **change}, **options)


@pytest.mark.needs_rtx
def test_an_attention_fused_in_float_makes_up_for_no_other(built: Bundle) -> None:
    (engine,) = built.engines.values()
    plan = replace(engine.plan, attention_fused=3, attention_dtypes={"Half": 2, "Float": 1})
    facts = built.manifest.precision
    with pytest.raises(PrecisionError, match="attention fused in 3 of 4 blocks"):
        prove(
            plan,
            precision=Precision.FP16,
            num_attention=4,
            num_gemms=16,
            linears=promised_linears(facts),
            kept=kept_products(facts),
            kept_attention=1,
        )


@pytest.mark.needs_rtx
def test_an_int8_plan_shows_three_types(tmp_path: Path) -> None:
    bundle = ve.export_model(
        "demo",
        tmp_path / "out",
        precision="int8",
        targets=("tensorrt-rtx",),
        sms=(89,),
        check=False,
        calibration=CalibrationOptions(num_clips=32),
        keep_fp16=r"^layers\.1\.mlp|^layers\.0\.attention\.qkv",
        keep_fp32=r"^layers\.2\.mlp\.fc1",
    )
    found = dtypes(bundle)
    half = {f"layers.1.mlp.{n}/MatMul" for n in ("fc1", "fc2")}
    half |= {f"layers.0.attention.{n}_proj/MatMul" for n in "qkv"}
    linears = {f"{linear}/MatMul" for linear in bundle.manifest.precision.layers if linear.startswith("layers.")}
    assert {node for node in linears if found[node] == "Half"} == half
    assert {node for node in linears if found[node] == "Float"} == {"layers.2.mlp.fc1/MatMul"}
    assert {found[node] for node in linears} == {"Int8", "Half", "Float"}
    (engine,) = bundle.engines.values()
    assert [text for text in engine.proof if text.startswith("kept")] == [
        "kept: 3 of 3 GEMMs in Half", "kept: 1 of 1 GEMMs in Float"
    ]  # fmt: skip

"""Facts about each precision, against NumPy's types and what the README promises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from vivit_export.errors import UsageError
from vivit_export.precision import Precision, find_precision

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TYPES = {
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "int8": np.int8,
    "fp8": ml_dtypes.float8_e4m3fn,
}
LARGEST = {"fp32": 2.0**128, "fp16": 65504.0, "bf16": 2.0**127 * 1.9921875, "int8": 127.0, "fp8": 448.0}


def test_they_are_those_of_the_readme() -> None:
    named = re.findall(r"^\| `--(\w+)`", README, re.MULTILINE)
    assert [str(p) for p in Precision] == named == list(TYPES)


@pytest.mark.parametrize("precision", Precision)
def test_the_type_is_that_of_the_name(precision: Precision) -> None:
    assert precision.dtype.numpy() == np.dtype(TYPES[precision])
    assert precision.rounds == (precision != "fp32")
    assert precision.quantized == (TYPES[precision] in (np.int8, ml_dtypes.float8_e4m3fn))


@pytest.mark.parametrize("precision", Precision)
def test_codes_stand_among_floating_point_numbers(precision: Precision) -> None:
    assert np.issubdtype(TYPES[precision.base], np.floating) or precision.base == "bf16"
    assert precision.base.base is precision.base and not precision.base.quantized


@pytest.mark.parametrize("precision", Precision)
def test_what_is_wider_holds_larger_numbers(precision: Precision) -> None:
    wider = precision.wider
    if wider is None:
        assert precision == "fp32"
        return
    assert LARGEST[wider] > LARGEST[precision]


def test_a_precision_is_its_name_in_json_and_text() -> None:
    assert json.dumps({"precision": Precision.INT8}) == '{"precision": "int8"}'
    assert f"{Precision.BF16:>6}" == "  bf16" and str(Precision.FP8) == "fp8"
    assert Precision("fp16") is Precision.FP16 and [*Precision][1] == "fp16"
    assert find_precision("int8") is Precision.INT8


def test_another_name_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="precision 'int4' is not one of fp32, fp16, bf16, int8, fp8"):
        find_precision("int4")


def test_fewer_bits_have_more_room_to_drift() -> None:
    for narrow, wide in (("fp16", "fp32"), ("bf16", "fp16"), ("int8", "fp16"), ("fp8", "int8")):
        assert Precision(narrow).gate["max"] > Precision(wide).gate["max"]
        assert Precision(narrow).gate["cosine"] < Precision(wide).gate["cosine"]


def test_a_gate_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        Precision.FP16.gate["max"] = 1.0  # type: ignore[index]

"""What a search would try, told without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivit_export.errors import UsageError
from vivit_export.export.options import ExportOptions
from vivit_export.export.search_preview import ORDER_OF_TRIALS, preview_search
from vivit_export.precision import Precision

ONNX = ("onnx",)


@pytest.mark.needs_onnxruntime
def test_the_demo_can_be_tried_in_every_precision(tmp_path: Path) -> None:
    found = preview_search("demo", tmp_path / "out", ExportOptions(Precision.INT8, ONNX))
    assert tuple(found.plans) == ORDER_OF_TRIALS and not found.impossible
    assert found.to_json()["precision"] == "auto" and set(found.to_json()["tried"]) == set(Precision)
    assert preview_search("demo", None, ExportOptions(Precision.INT8, ONNX)).target == Path("vivit-demo-auto")


@pytest.mark.needs_onnxruntime
def test_what_cannot_be_tried_says_why(tmp_path: Path) -> None:
    old = preview_search("demo", tmp_path / "out", ExportOptions(Precision.INT8, ONNX, opset=20, attention="pattern"))
    assert list(old.impossible) == [Precision.BF16] and "outside 22 to" in old.impossible[Precision.BF16]


@pytest.mark.needs_rtx
def test_a_gpu_without_the_arithmetic_takes_no_part(tmp_path: Path) -> None:
    options = ExportOptions(Precision.INT8, ("tensorrt-rtx",), sms=(75,))
    found = preview_search("demo", tmp_path / "out", options)
    assert set(found.plans) == {Precision.INT8, Precision.FP16, Precision.FP32}
    assert set(found.impossible) == {Precision.FP8, Precision.BF16}


@pytest.mark.needs_onnxruntime
def test_a_mistake_that_all_share_is_that_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        preview_search("demo", tmp_path / "out", ExportOptions(Precision.INT8, ONNX, gate="nonsense=1"))

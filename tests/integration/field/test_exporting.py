"""Exports of the field cases (docs/field-cases.md): what is taken, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import Checkpoints
from videos import make_picture_video, moving_picture

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.errors import BuildError, DriftError, UsageError
from vivit_export.precision import Precision


@pytest.mark.field_case("Model-Optimizer 565")
@pytest.mark.needs_onnxruntime
def test_calibration_clips_of_many_sizes_that_are_of_another_kind(tmp_path: Path) -> None:
    data, target = tmp_path / "data", tmp_path / "bundle"
    data.mkdir()
    for number in range(32):
        size = (64 + 6 * number, 96 - 2 * (number % 8))
        pictures = (moving_picture(step, *size) for step in range(8))
        make_picture_video(data / f"{number}.mp4", pictures, codec="mpeg4")
    options = CalibrationOptions((data,), cache=tmp_path / "cache")
    with pytest.raises(DriftError):
        ve.export_model("demo", target, precision="int8", targets=("onnx",), num_clips=8, calibration=options)
    assert not target.exists()


@pytest.mark.needs_rtx
@pytest.mark.field_case("TensorRT-RTX 20", "pytorch/TensorRT 4643")
@pytest.mark.parametrize(
    ("precision", "error", "said"),
    [
        (Precision.FP32, BuildError, r"Turing \(SM75\): .* is not supported; drop 75 from sms, or use precision=fp16"),
        (Precision.BF16, UsageError, "sms=75 has no bf16 arithmetic"),
    ],
)
def test_what_turing_has_no_kernels_for(
    checkpoints: Checkpoints, tmp_path: Path, precision: Precision, error: type[Exception], said: str
) -> None:
    folder = checkpoints.folder(hidden_size=64)
    with pytest.raises(error, match=said):
        ve.export_model(
            folder, tmp_path / "bundle", precision=precision, targets=("tensorrt-rtx",), sms=(75,), check=False
        )
    assert not (tmp_path / "bundle").exists()

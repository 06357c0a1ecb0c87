"""Sizes at their ends, exported from end to end: the check inside compares each with eager, and proves it equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Checkpoints
from made_clips import blurred
from safetensors.numpy import save_file

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.precision import PrecisionName

SMALLEST: dict[str, Any] = {
    "num_labels": 1, "num_frames": 1, "tubelet_size": [1, 16, 16],  # one logit, one frame, one token of pixels
    "hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 37,  # heads of 10, a prime width
    "layer_norm_eps": 0.0, "num_hidden_layers": 2,
}  # fmt: skip
WIDEST: dict[str, Any] = {"num_labels": 3000, "image_size": [16, 24], "hidden_size": 33, "num_attention_heads": 1}


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("fields", [SMALLEST, WIDEST], ids=["smallest", "widest"])
def test_sizes_at_their_ends(
    checkpoints: Checkpoints, tmp_path: Path, fields: dict[str, Any], precision: PrecisionName
) -> None:
    folder, clip = checkpoints.folder(**fields), checkpoints.load(**fields).clip
    data = tmp_path / "crops.safetensors"
    crops = blurred(np.random.default_rng(0), 40, (clip.num_frames, clip.height, clip.width, 3))
    save_file({"frames": crops}, data)
    # Random weights are near ties everywhere, and one logit's range is that of a few clips: INT8's own drift is larger.
    gate = None
    if precision == "int8":
        of_classes = "" if fields.get("num_labels") == 1 else ",cosine=0.95,clear_flips=9"
        gate = f"max=0.2,embedding_cosine=0.95{of_classes}"
    calibration = CalibrationOptions(data=(data,)) if precision == "int8" else CalibrationOptions()
    bundle = ve.export_model(
        str(folder), tmp_path / "out", precision=precision, targets=("onnx",), num_clips=4,
        calibration=calibration, gate=gate,
    )  # fmt: skip
    assert len(bundle.contract.labels) == fields["num_labels"]
    assert bundle.manifest.checks is not None
    drifts = [run.drift for run in bundle.manifest.checks.runs if run.drift is not None]
    assert {drift.cosine is None for drift in drifts} == {fields["num_labels"] == 1}

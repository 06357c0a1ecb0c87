"""Every model family from the checkpoint to predictions: engines that are proven, INT8, drift by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from family_checkpoints import CASES, folder
from noted import Noted
from safetensors.numpy import save_file

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.demo.motion import LABELS, render_clip
from vivit_export.export.graph.load import load_verified
from vivit_export.export.graph.quantize import find_groups

SIZE, FRAMES = 16, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of the demo's motions, in the shape of the tiny checkpoints."""
    clips = [render_clip(LABELS[i % 8], seed=i, num_frames=FRAMES, height=SIZE, width=SIZE) for i in range(32)]
    path = tmp_path_factory.mktemp("data") / "crops.safetensors"
    save_file({"frames": np.stack(clips)}, path)
    return path


@pytest.mark.needs_rtx
@pytest.mark.parametrize("case", [case for case in CASES if case != "timesformer-no-bias"])
def test_an_engine_is_proven_and_drift_is_known_by_block(case: str, tmp_path: Path) -> None:
    bundle = ve.export_model(
        folder(case), tmp_path / "out", precision="fp16", targets=("tensorrt-rtx",), sms=(89,), num_clips=2
    )
    anatomy = bundle.manifest.model.anatomy
    (engine,) = bundle.engines.values()
    attentions = anatomy.num_attentions
    assert engine.proof[0].startswith(f"attention fused in {attentions} of {attentions} blocks (Half)") or (
        "the class token's own needs no fused kernel" in engine.proof[0]
    )
    checks = bundle.manifest.checks
    assert checks is not None and checks.passed
    report = ve.check(bundle.path, against="eager", checkpoint=str(folder(case)), num_clips=2, per_block=True)
    assert report.taps is not None and len(report.taps.taps) >= 2 * anatomy.num_blocks + 2
    assert report.taps.suspect is None


@pytest.mark.needs_onnxruntime
def test_how_the_authors_draw_clips_is_said_unless_you_say_how(tmp_path: Path) -> None:
    said = []
    for name, stride in (("a", None), ("b", 4)):
        progress = Noted()
        ve.export_model(
            folder("videomae"), tmp_path / name, targets=("onnx",), check=False, stride=stride, progress=progress
        )
        said.append([note for note in progress.notes if "authors of VideoMAE" in note])
    wanted = "--sampling stride --stride 4 --views 5x3"
    assert said == [
        [f"the authors of VideoMAE draw clips with {wanted}; without that, frames are spread evenly"],
        [],
    ]


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("case", ["videomae", "timesformer", "encoder", "dot-product", "vjepa2"])
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_every_linear_of_the_blocks_is_quantized(case: str, precision: str, tmp_path: Path, data: Path) -> None:
    bundle = ve.export_model(
        folder(case),
        tmp_path / "out",
        precision=precision,  # type: ignore[arg-type]
        targets=("onnx",),
        calibration=CalibrationOptions((data,)),
        num_clips=2,
        gate="top1=0.5,max=0.2,cosine=0.9",
    )
    model, anatomy = load_verified(bundle), bundle.manifest.model.anatomy
    codes = [n for n in model.graph if n.op_type == "DequantizeLinear" and str(n.name).endswith("/DequantizeWeight")]
    merged = bundle.manifest.precision.rewrites.get("linear-pairs", 0)
    assert len(codes) == anatomy.num_linears - merged
    assert not find_groups(model, anatomy)  # nothing is left to quantize
    with ve.open_session(bundle.path, prefer="onnxruntime-cpu") as session:
        logits = session.infer(np.zeros((1, FRAMES, SIZE, SIZE, 3), np.uint8))
    assert np.isfinite(logits).all()

"""Checkpoints with outlier channels: the same function, on which plain W8A8 falls apart and ours does not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import make_checkpoint
import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import FACTORISED
from checkpoints import outliers as outliers_tool
from safetensors.numpy import save_file

from vivit_export.bundle.checks import Drift
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.export.calibrate import calibration_contract, calibration_graph, motion_clips, obtain_ranges
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.graph.build import rewrite_graph
from vivit_export.export.trials import Trials
from vivit_export.precision import Precision
from vivit_export.progress import Silent
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.drift.per_clip import Outputs

pytestmark = pytest.mark.needs_onnxruntime

WIDE = {"num_labels": 8, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 8}
OTHERS: dict[str, dict[str, Any]] = {
    "videomae": {"intermediate_size": 384, "image_size": 32, "num_frames": 8},
    "timesformer": {"intermediate_size": 384, "image_size": 32, "num_frames": 8},
    "vjepa2": {"crop_size": 32, "frames_per_clip": 8, "num_pooler_layers": 1, "pred_num_hidden_layers": 1},
}
SEED = 2_500_000  # of clips that no training, calibration or benchmark sees


@pytest.fixture(scope="module", params=["demo", str(FACTORISED)], ids=["joint", "factorised"])
def trained(request: pytest.FixtureRequest) -> Checkpoint:
    """Networks that were trained on the demo's task, so that their decisions mean something."""
    return load_checkpoint(request.param)


@pytest.fixture(scope="module")
def folder(trained: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("outliers") / "made"
    outliers_tool.main([trained.source, str(out)], standalone_mode=False)
    return out


@pytest.fixture(scope="module")
def outliers(folder: Path) -> Checkpoint:
    return load_checkpoint(str(folder))


def crops_of(outliers: Checkpoint, count: int) -> npt.NDArray[np.uint8]:
    model = rewrite_graph(outliers, ("logits",), Precision.INT8).model
    calibration_graph(outliers, model)
    contract = calibration_contract(outliers, model, outliers.clip)
    return motion_clips(contract, range(SEED, SEED + count))


def drift_of(
    outliers: Checkpoint,
    calibrated: npt.NDArray[np.uint8],
    held_out: npt.NDArray[np.uint8],
    reference: Outputs,
    precision: Precision,
    folder: Path,
    **options: str,
) -> Drift:
    save_file({"frames": calibrated}, folder / "crops.safetensors")
    rewritten = rewrite_graph(outliers, ("logits", "embedding"), Precision.INT8)
    asked = CalibrationOptions((folder / "crops.safetensors",), **options)  # type: ignore[arg-type]
    ranges = obtain_ranges(outliers, rewritten, outliers.clip, precision, asked, Silent())
    return Trials(outliers, rewritten, ranges, held_out, reference).drift(())


@pytest.fixture(scope="module")
def crops(outliers: Checkpoint) -> npt.NDArray[np.uint8]:
    return crops_of(outliers, 164)


@pytest.fixture(scope="module")
def reference(trained: Checkpoint, crops: npt.NDArray[np.uint8]) -> Outputs:
    pixels = Preprocessor(trained.clip, trained.preprocess).to_pixels(crops[64:])
    return trained.run_eager(pixels)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_ours_holds_where_plain_quantization_does_not(
    outliers: Checkpoint, crops: npt.NDArray[np.uint8], reference: Outputs, tmp_path: Path, precision: Precision
) -> None:
    drift = partial(drift_of, outliers, crops[:64], crops[64:], reference, precision, tmp_path)
    ours = drift()
    assert ours.top1 is not None and ours.cosine is not None and ours.rms is not None
    assert ours.top1 >= 0.99 and ours.cosine >= 0.999 - 0.001 * (precision is Precision.FP8)
    if precision is Precision.INT8:
        plain = drift(method="minmax", smooth="none")
        assert plain.rms is not None and plain.cosine is not None
        assert plain.rms > 5 * ours.rms
        assert plain.cosine < 0.99


@pytest.mark.parametrize("family", OTHERS)
def test_ours_holds_in_every_family(family: str, tmp_path: Path) -> None:
    """These networks have random weights, so that how far logits move counts, and not whose decisions they are."""
    make_checkpoint.make_other(family, tmp_path / "made", **WIDE, **OTHERS[family])
    outliers_tool.main([str(tmp_path / "made"), str(tmp_path / "outliers")], standalone_mode=False)
    made, outliers = (load_checkpoint(str(tmp_path / name)) for name in ("made", "outliers"))
    crops = crops_of(outliers, 64)
    reference = made.run_eager(Preprocessor(made.clip, made.preprocess).to_pixels(crops[32:]))
    for precision, most in ((Precision.INT8, 0.018), (Precision.FP8, 0.026)):
        drift = partial(drift_of, outliers, crops[:32], crops[32:], reference, precision, tmp_path)
        ours = drift()
        assert ours.rms is not None and ours.rms < most
        if precision is Precision.INT8:
            plain = drift(method="minmax", smooth="none")
            assert plain.rms is not None and plain.rms > 3 * ours.rms

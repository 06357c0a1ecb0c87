"""Checkpoints with outlier channels: the same function, on which plain W8A8 falls apart and ours does not."""

from __future__ import annotations

from pathlib import Path

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


@pytest.fixture(scope="module")
def crops(outliers: Checkpoint) -> npt.NDArray[np.uint8]:
    model = rewrite_graph(outliers, ("logits",), Precision.INT8).model
    calibration_graph(outliers, model)
    contract = calibration_contract(outliers, model, outliers.clip)
    return motion_clips(contract, range(SEED, SEED + 164))


@pytest.fixture(scope="module")
def reference(trained: Checkpoint, crops: npt.NDArray[np.uint8]) -> Outputs:
    pixels = Preprocessor(trained.clip, trained.preprocess).to_pixels(crops[64:])
    return trained.run_eager(pixels)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_ours_holds_where_plain_quantization_does_not(
    outliers: Checkpoint, crops: npt.NDArray[np.uint8], reference: Outputs, tmp_path: Path, precision: Precision
) -> None:
    save_file({"frames": crops[:64]}, tmp_path / "crops.safetensors")
    rewritten = rewrite_graph(outliers, ("logits", "embedding"), Precision.INT8)

    def drift(**options: str) -> Drift:
        asked = CalibrationOptions((tmp_path / "crops.safetensors",), **options)  # type: ignore[arg-type]
        ranges = obtain_ranges(outliers, rewritten, outliers.clip, precision, asked, Silent())
        return Trials(outliers, rewritten, ranges, crops[64:], reference).drift(())

    ours = drift()
    assert ours.top1 is not None and ours.cosine is not None and ours.rms is not None
    assert ours.top1 >= 0.99 and ours.cosine >= 0.999 - 0.001 * (precision is Precision.FP8)
    if precision is Precision.INT8:
        plain = drift(method="minmax", smooth="none")
        assert plain.rms is not None and plain.cosine is not None
        assert plain.rms > 5 * ours.rms
        assert plain.cosine < 0.99

"""A check over several views says what `predict` says of the same videos."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import Bundles

import vivit_export as ve
from vivit_export.demo import clip_labels, clips_path
from vivit_export.errors import UsageError
from vivit_export.export.recheck import check
from vivit_export.runtime import predict_videos
from vivit_export.runtime.predict import VideoPrediction, adapt_contract

pytestmark = pytest.mark.needs_onnxruntime
NAMES = ("left_320x240_25fps.mp4", "up_240x426_30fps.mp4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("videos")
    for name in NAMES:
        shutil.copy(clips_path() / name, place)
    (place / "labels.csv").write_text("".join(f"{name},{clip_labels()[name]}\n" for name in NAMES), encoding="utf-8")
    return place


def test_logits_are_averaged_as_predict_averages_them(bundles: Bundles, folder: Path) -> None:
    bundle = bundles.demo(check=True, num_clips=3, precision="fp16")
    report = check(bundle, folder, views=(1, 3), labels=folder / "labels.csv", engine="onnxruntime-cpu")
    assert report.passed and report.names == NAMES and report.clips.views == (1, 3)
    assert [run.drift.num_clips for run in report.runs if run.drift] == [2, 2, 15, 2]
    assert report.accuracy is not None and report.accuracy.top1.share == 1.0
    with ve.open_session(bundle, "onnxruntime-cpu") as session:
        contract = adapt_contract(session.contract, views=(1, 3))
        found = predict_videos(session, [folder / name for name in NAMES], contract=contract)
        predicted = {r.path.name: r.prediction.logits for r in found if isinstance(r, VideoPrediction)}
    assert report.view is not None
    for clip in report.view.clips:
        logits = predicted[clip.name]
        assert logits is not None
        best = max(score.logit for score in clip.ours if score.logit is not None)
        # The worst run is the one that emulates the rounding of fp16.
        np.testing.assert_allclose(best, logits.max(), rtol=2e-3)
        single = check(bundle, folder / clip.name, engine="onnxruntime-cpu").view
        assert single is not None and single.clips[0].reference != clip.reference


def test_views_are_of_videos_and_not_of_blocks(bundles: Bundles, folder: Path) -> None:
    bundle = bundles.demo(check=True, num_clips=3, precision="fp16")
    with pytest.raises(UsageError, match="views=2x1 is for videos, and the golden clips are frames; name videos with"):
        check(bundle, views=(2, 1))
    with pytest.raises(UsageError, match="views=2x1 and per_block exclude each other"):
        check(bundle, folder, views=(2, 1), per_block=True)
    with pytest.raises(UsageError, match="several temporal views need sampling=stride"):
        check(bundle, folder, views=(2, 1))
    with pytest.raises(UsageError, match="spatial"):
        check(bundle, folder, views=(1, 2))

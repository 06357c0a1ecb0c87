"""Predictions of live video from Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from bundles import Bundles
from videos import with_frames

import vivit_export as ve
from vivit_export.demo import clips_path
from vivit_export.errors import UsageError
from vivit_export.runtime.clips.clip import read_clip
from vivit_export.runtime.clips.windows import WindowRule

pytestmark = pytest.mark.needs_onnxruntime
LEFT = clips_path() / "left_320x240_25fps.mp4"


@pytest.fixture(scope="module")
def session(bundles: Bundles) -> Iterator[ve.Session]:
    with ve.open_session(bundles.demo(), "onnxruntime-cpu") as opened:
        yield opened


def test_a_callers_frames_give_the_predictions_of_the_file(session: ve.Session) -> None:
    every = read_clip(LEFT, with_frames(session.contract, 50))
    live = list(ve.stream(session, ((n / 25, frame) for n, frame in enumerate(every)), window=1.0, hop=0.5))
    offline = list(ve.runtime.predict_videos(session, LEFT, windows=WindowRule(1.0, 0.5)))
    assert [result.frames for result in live] == [(0, 25), (13, 38), (25, 50)]
    for one, other in zip(live, offline, strict=True):
        assert isinstance(other, ve.runtime.VideoPrediction)
        assert one.span_seconds == pytest.approx(other.span_seconds)
        assert one.prediction.logits is not None and other.prediction.logits is not None
        np.testing.assert_allclose(one.prediction.logits, other.prediction.logits, atol=1e-4)
        assert one.latency_seconds > 0 and one.to_json(1)["top"][0]["label"] == "left"


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("a.mp4", {}, "'a.mp4' names no live video"),
        (LEFT, {}, "names no live video"),
        (5, {}, r"source must be an address or an iterable of pairs \(time, frame\), got int"),
        ([], {"window": 0.0}, "window=0 must be a number of seconds"),
        ([], {"on_late": "never"}, "on_late='never' is not one of drop, wait"),
        ([], {"timeout": float("nan")}, "timeout=nan must be a number of seconds"),
        ([], {"timeout": "5"}, "timeout='5' must be a number of seconds"),
        ([], {"reconnect": -1}, "reconnect=-1 must be a number of seconds, 0 or more"),
    ],
)
def test_what_is_refused_at_once(session: ve.Session, source: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ve.stream(session, source, **{"window": 1.0, **options})

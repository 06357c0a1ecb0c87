"""Video files sent to a real server as they are: what the bundle predicts here, fault for fault."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_server import VIEWS, Served

import vivit_export as ve
from vivit_export.demo import clips_path
from vivit_export.errors import ClipError, EnvironmentFault, UsageError
from vivit_export.runtime import VideoFault, VideoPrediction, WindowRule, predict_videos
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.predict import adapt_contract
from vivit_export.runtime.session.triton.videos import VideoModel, open_model

VIDEOS = sorted(clips_path().glob("*.mp4"))


@pytest.fixture(params=["grpc", "http"])
def model(served: Served, request: pytest.FixtureRequest) -> Iterator[VideoModel]:
    with open_model(served.server.url("demo-video", request.param)) as opened:
        assert isinstance(opened, VideoModel)
        yield opened


def predicted(result: VideoPrediction | VideoFault) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embedding."""
    assert isinstance(result, VideoPrediction)
    logits, embedding = result.prediction.logits, result.prediction.embedding
    assert logits is not None and embedding is not None
    return logits, embedding


def logits(results: list[VideoPrediction | VideoFault]) -> np.ndarray:
    return np.stack([predicted(result)[0] for result in results])


@pytest.mark.parametrize("in_flight", [0, 8])
def test_the_same_predictions_as_here_in_order(served: Served, model: VideoModel, in_flight: int) -> None:
    assert model.contract == served.bundle.contract
    found = list(predict_videos(model, VIDEOS, in_flight=in_flight))
    with ve.open_session(served.bundle, prefer="onnxruntime-cpu") as session:
        expected = list(predict_videos(session, VIDEOS))
    assert [result.path for result in found] == VIDEOS
    np.testing.assert_allclose(logits(found), logits(expected), rtol=0, atol=2e-5)  # other kernels here
    assert predicted(found[0])[1].shape == predicted(expected[0])[1].shape


def test_views_are_the_servers(served: Served) -> None:
    sampled = adapt_contract(served.bundle.contract, stride=4, short="repeat", views=VIEWS)
    with open_model(served.server.url("views-video")) as model, ve.open_session(served.server.url("demo")) as session:
        assert model.contract.clip == sampled.clip
        found = list(predict_videos(model, VIDEOS[:2]))
        expected = list(predict_videos(session, VIDEOS[:2], contract=sampled))
    np.testing.assert_allclose(logits(found), logits(expected), rtol=0, atol=5e-6)


def test_a_model_that_takes_clips_is_a_session(served: Served) -> None:
    with open_model(served.server.url("demo")) as session:
        assert isinstance(session, ve.Session)


def test_faults_are_those_of_the_file(model: VideoModel, tmp_path: Path) -> None:
    written = {"text": b"no video", "noise": b"\0noise", "cut": VIDEOS[0].read_bytes()[:3000], "empty": b""}
    paths = [tmp_path / name for name in written]
    for path, data in zip(paths, written.values(), strict=True):
        path.write_bytes(data)
    found = list(predict_videos(model, [*paths, tmp_path / "none", tmp_path, VIDEOS[0]], in_flight=4))
    said = [str(result.error) for result in found if isinstance(result, VideoFault)]
    assert [text.partition(" ")[0] for text in said] == [str(path) for path in (*paths, tmp_path / "none", tmp_path)]
    for text, part in zip(
        said,
        (
            "is a text file",
            "cannot be read as a video",
            "is cut short",
            "is empty",
            "not exist",
            "is a folder",
        ),
        strict=True,
    ):
        assert part in text and "the video" not in text
    assert isinstance(found[-1], VideoPrediction)


@pytest.mark.field_case("dali_backend 241")
def test_a_file_beyond_what_a_request_takes_is_refused_unread(
    model: VideoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "fromfile", None)  # reading 2 GiB takes a while, and as much memory
    with (path := tmp_path / "huge.mp4").open("wb") as file:
        for place in range(0, 2**31, 2**29):  # a hole that is larger would be the reason
            file.seek(place)
            file.write(b"\1")
        file.truncate(2**31)
    with pytest.raises(ClipError, match=r"larger than the 2 GiB that a request may have; use the model demo for it"):
        model(path)


def test_a_server_does_not_sample_otherwise(served: Served, model: VideoModel) -> None:
    with pytest.raises(
        UsageError, match=r"the server samples videos by itself .*; for another sampling use the model demo"
    ):
        list(predict_videos(model, VIDEOS, contract=adapt_contract(model.contract, stride=1)))
    with pytest.raises(UsageError, match="windows are cut on this machine, but this model takes whole videos"):
        list(predict_videos(model, VIDEOS, windows=WindowRule(1.0)))
    with pytest.raises(UsageError, match="shared_memory=yes is for clips, but demo-video takes videos"):
        open_model(served.server.url("demo-video", query="?shared_memory=yes"))
    with pytest.raises(EnvironmentFault, match=r"demo-frames' .* takes videos but predicts nothing; use demo-video"):
        open_model(served.server.url("demo-frames"))


@pytest.mark.parametrize("options", [{"readers": 2}, {"reading": Reading("full")}])
def test_a_server_reads_as_it_does(model: VideoModel, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="decode and readers are for videos that are read on this machine"):
        list(predict_videos(model, [], **options))


def test_a_model_stays_in_its_process(model: VideoModel) -> None:
    with pytest.raises(UsageError, match=r"belongs to this process .* with open_model"):
        pickle.dumps(model)


def test_a_closed_model_is_told(served: Served) -> None:
    model = open_model(served.server.url("demo-video"))
    model.close()
    model.close()
    with pytest.raises(UsageError, match="the model is closed; open another"):
        model(VIDEOS[0])  # type: ignore[arg-type]

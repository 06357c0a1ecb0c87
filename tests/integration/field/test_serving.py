"""Requests of the field cases (docs/field-cases.md) to a real tritonserver."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import need, random_crops
from triton_server import Served
from videos import make_picture_video

import vivit_export as ve
from vivit_export.errors import EnvironmentFault
from vivit_export.runtime import VideoPrediction, predict_videos
from vivit_export.runtime.session.triton.videos import open_model

need("tritonclient")


def post(served: Served, model: str, tensor: dict[str, Any]) -> dict[str, Any]:
    """Ask over HTTP with one input in JSON; return the answer, or what the server said."""
    address = f"http://127.0.0.1:{served.server.http}/v2/models/{model}/infer"
    request = urllib.request.Request(address, json.dumps({"inputs": [tensor]}).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as e:
        return dict(json.load(e))


@pytest.mark.field_case("server 1776", "server 4972")
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_video_of_more_than_four_megabytes(served: Served, tmp_path: Path, protocol: str) -> None:
    rng = np.random.default_rng(0)
    pictures = (rng.integers(0, 256, (360, 480, 3), dtype=np.uint8) for _ in range(24))
    path = make_picture_video(tmp_path / "a.mp4", pictures, codec_options={"qp": "1"})
    assert path.stat().st_size > 4 << 20
    with (
        ve.open_session(served.server.url("demo")) as session,
        open_model(served.server.url("demo-video", protocol)) as model,
    ):
        (expected,), (found,) = predict_videos(session, path), predict_videos(model, path)
    assert isinstance(expected, VideoPrediction) and isinstance(found, VideoPrediction)
    np.testing.assert_allclose(found.prediction.logits, expected.prediction.logits, rtol=0, atol=5e-6)  # type: ignore[arg-type]


@pytest.mark.field_case("server 5348")
def test_a_time_limit_is_in_seconds(served: Served) -> None:
    with pytest.raises(EnvironmentFault, match=r"no Triton server answers at .* within 0\.001 s"):
        ve.open_session(served.server.url("demo", "grpc", "?timeout=0.001"))
    with ve.open_session(served.server.url("demo", "grpc", "?timeout=30")) as session:
        assert session.infer(random_crops(served.bundle, 1)).shape == (1, 8)


@pytest.mark.field_case("server 4405")
def test_json_may_be_nested_or_flat(served: Served) -> None:
    crops = random_crops(served.bundle, 1)
    shape = {"name": "frames", "datatype": "UINT8", "shape": list(crops.shape)}
    answers = [post(served, "demo", {**shape, "data": data}) for data in (crops.tolist(), crops.ravel().tolist())]
    with ve.open_session(served.server.url("demo")) as session:
        expected = session.infer(crops)
    for answer in answers:
        (logits,) = (output["data"] for output in answer["outputs"] if output["name"] == "logits")
        np.testing.assert_allclose(logits, expected[0], rtol=0, atol=5e-6)


@pytest.mark.field_case("client 784")
def test_bytes_sent_as_a_string_are_refused(served: Served) -> None:
    tensor = {"name": "video", "datatype": "BYTES", "shape": [1, 1], "data": ["not bytes"]}
    said = post(served, "demo-video", tensor)["error"]
    assert "data-type is 'BYTES', but model 'demo-video' expects 'UINT8'" in said

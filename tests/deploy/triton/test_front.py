"""Encoded videos in front of the engine, in a real server: what Python predicts, and refusals of other data."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles import need
from hypothesis import given
from hypothesis import strategies as st
from made_bundle import contract
from triton_server import VIEWS, Served, TritonServer, running

import vivit_export as ve
from vivit_export.demo import clips_path
from vivit_export.deploy.triton.front import read_video
from vivit_export.errors import ClipError
from vivit_export.runtime import VideoPrediction, predict_videos
from vivit_export.runtime.clips.views import read_views
from vivit_export.runtime.predict import adapt_contract

need("tritonclient")
import tritonclient.grpc as triton  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

VIDEOS = sorted(clips_path().glob("*.mp4"))


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    opened = triton.InferenceServerClient(f"127.0.0.1:{served.server.grpc}")
    yield opened
    opened.close()


def ask(client: triton.InferenceServerClient, model: str, data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    rows = np.frombuffer(data, np.uint8)[None]
    video = triton.InferInput("video", list(rows.shape), "UINT8")
    video.set_data_from_numpy(rows)
    answer = client.infer(model, [video], client_timeout=60)
    return {name: answer.as_numpy(name) for name in ("logits", "embedding")}


def predicted(served: Served, paths: list[Path], **sampling: Any) -> list[VideoPrediction]:
    sampled = adapt_contract(served.bundle.contract, **sampling)
    with ve.open_session(served.server.url("demo")) as session:
        found = list(predict_videos(session, paths, contract=sampled))
    assert all(isinstance(result, VideoPrediction) for result in found)
    return found  # type: ignore[return-value]


def assert_answer_is(expected: VideoPrediction, answer: dict[str, np.ndarray]) -> None:
    logits, embedding = expected.prediction.logits, expected.prediction.embedding
    assert logits is not None and embedding is not None
    np.testing.assert_allclose(answer["logits"][0], logits, rtol=0, atol=5e-6)
    np.testing.assert_allclose(answer["embedding"][0], embedding, rtol=0, atol=5e-6)


def test_videos_are_read_on_the_server_as_here(served: Served, client: triton.InferenceServerClient) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda path: ask(client, "demo-video", path.read_bytes()), VIDEOS))
    for answer, expected in zip(answers, predicted(served, VIDEOS), strict=True):
        assert answer["logits"].shape == (1, 8)
        assert_answer_is(expected, answer)


@pytest.mark.parametrize("model", ["demo-video", "views-video"])
@pytest.mark.field_case("server 1454", "server 3914", "server 3014")
def test_requests_that_wait_are_read_together_and_answered_one_by_one(
    client: triton.InferenceServerClient, model: str
) -> None:
    """Videos of several sizes, and one that is broken."""
    sent = [path.read_bytes() for path in (*VIDEOS, *VIDEOS)]
    alone = {data: ask(client, model, data)["logits"] for data in sent}
    sent.insert(5, b"\0not a video at all")
    refused: list[str] = []

    def answer(data: bytes) -> None:
        try:
            np.testing.assert_allclose(ask(client, model, data)["logits"], alone.get(data), rtol=0, atol=5e-6)  # type: ignore[arg-type]
        except InferenceServerException as e:
            assert data not in alone
            refused.append(str(e))

    with ThreadPoolExecutor(len(sent)) as pool:
        list(pool.map(answer, sent))
    (said,) = refused
    assert "the video cannot be read as a video" in said


def test_views_are_averaged_on_the_server_as_here(served: Served, client: triton.InferenceServerClient) -> None:
    sampling = {"stride": 4, "short": "repeat", "views": VIEWS}
    for path, expected in zip(VIDEOS[:3], predicted(served, VIDEOS[:3], **sampling), strict=True):
        answer = ask(client, "views-video", path.read_bytes())
        assert_answer_is(expected, answer)


@pytest.mark.parametrize("model", ["demo-video", "views-video"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0not a video at all", "the video cannot be read as a video"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "the video is a playlist, which only names other files"),
        (b"#EXTM3U\n# \0\xff\n#EXTINF:1,\n/etc/hostname\n", "the video (is not a video of a kind|cannot be read)"),
        (b"", "the video is empty; give a video file"),
        (VIDEOS[0].read_bytes()[:3000], "the video is cut short"),
    ],
)
def test_bytes_that_are_not_a_video(client: triton.InferenceServerClient, model: str, data: bytes, said: str) -> None:
    with pytest.raises(InferenceServerException, match=said) as caught:
        ask(client, model, data)
    assert "Traceback" not in str(caught.value) and "/proc/" not in str(caught.value)
    assert ask(client, model, VIDEOS[0].read_bytes())["logits"].shape == (1, 8)  # and it goes on


def test_models_that_are_loaded_one_by_one(served: Served, tmp_path: Path) -> None:
    """With explicit model control: Triton loads what an ensemble consists of, but not what Python calls."""
    control = ["--model-control-mode=explicit", "--load-model=views-video"]
    data = VIDEOS[0].read_bytes()
    server = TritonServer(served.installed, served.backends, served.repositories[:2], tmp_path, control)
    with running(server), triton.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        said = "the model views, which this one calls, is not loaded; load it first"
        with pytest.raises(InferenceServerException, match=said):
            ask(client, "views-video", data)
        client.load_model("views")
        assert ask(client, "views-video", data)["logits"].shape == (1, 8)
        client.load_model("demo-video")
        assert client.is_model_ready("demo") and client.is_model_ready("demo-frames")
        assert ask(client, "demo-video", data)["logits"].shape == (1, 8)


def test_the_bytes_of_a_video_are_read_as_its_file(served: Served) -> None:
    own = served.bundle.contract
    for path in VIDEOS:
        np.testing.assert_array_equal(read_video(path.read_bytes(), own), read_views(path, own))


@given(st.binary(max_size=200))
def test_no_bytes_get_through_as_something_else(data: bytes) -> None:
    with pytest.raises(ClipError, match=r"^the video "):
        read_video(data, contract())


def test_the_front_needs_neither_torch_nor_a_client() -> None:
    code = """
    import sys
    for name in "torch transformers onnx onnxruntime tritonclient click polygraphy safetensors rich".split():
        sys.modules[name] = None  # any import of it now fails
    import vivit_export.deploy.triton.front
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

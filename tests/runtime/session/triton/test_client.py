"""What a real tritonserver does with a deployed bundle, and what the client makes of it."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles import Bundles, random_crops
from triton_server import Served, TritonServer, free_port, running

import vivit_export as ve
from vivit_export.errors import BundleError, EnvironmentFault, MissingDependencyError, UsageError
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession
from vivit_export.runtime.session.triton import shared_memory
from vivit_export.runtime.session.triton.address import parse_address
from vivit_export.runtime.session.triton.client import TritonBackend

# Rows of one graph in batches of different sizes, where sums are ordered differently.
OTHER_BATCH = 5e-6
WAYS = [(protocol, query) for protocol in ("grpc", "http") for query in ("", "?shared_memory=yes")]


@pytest.fixture(scope="module")
def graph(served: Served) -> OnnxRuntimeSession:
    """The graph that the server has for ONNX Runtime, whose attention is fused."""
    return OnnxRuntimeSession(served.repositories[0] / "demo/1/model.onnx")


@pytest.fixture
def backend(served: Served) -> Iterator[TritonBackend]:
    opened = TritonBackend(parse_address(served.server.url("demo")))
    yield opened
    opened.close()


@pytest.fixture
def own_blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many blocks of shared memory there are of those that this process makes; other processes test, too."""
    made: list[str] = []

    def make(name: str, **given: Any) -> SharedMemory:
        made.append(name)
        return SharedMemory(name, **given)

    monkeypatch.setattr(shared_memory, "SharedMemory", make)
    return lambda: sum(Path("/dev/shm", name).exists() for name in made)


def slow(clips: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A clip that the stand-in takes seconds for."""
    clips = clips.copy()
    clips.reshape(-1)[:4] = np.frombuffer(b"slow", np.uint8)
    return clips


# --- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "query"), WAYS)
@pytest.mark.field_case("server 7481")
def test_every_bit_is_that_of_the_same_graph_here(
    served: Served, graph: OnnxRuntimeSession, own_blocks: Callable[[], int], protocol: str, query: str
) -> None:
    with ve.open_session(served.server.url("demo", protocol, query)) as session:
        for count in (1, 5, 8):
            clips = random_crops(served.bundle, count, seed=count)
            answer, expected = session.run(clips), graph.run(clips)
            assert set(answer) == {"logits", "embedding"}
            for name, array in answer.items():
                np.testing.assert_array_equal(array, expected[name])
                assert array.flags.writeable
        assert own_blocks() == ("shared" in query)
    assert own_blocks() == 0


def test_a_session_on_a_server_says_what_it_is(served: Served) -> None:
    with ve.open_session(served.server.url("demo")) as session:
        assert session.contract == served.bundle.contract
        assert (session.engine, session.batches) == ("triton", (1, 8))
        runs = "model demo, ONNX Runtime, opset 22, 3 fused attention layers, fp32"
        assert re.fullmatch(rf"Triton 2\.51\.0 at 127\.0\.0\.1:\d+ \(gRPC\), {runs}", session.details)


@pytest.mark.parametrize("model", ["plan", "plans"])
def test_the_configuration_for_tensorrt_is_served_as_it_is(served: Served, model: str) -> None:
    graph = OnnxRuntimeSession(served.bundle.model)
    config = json.loads(served.server.get(f"v2/models/{model}/config"))
    assert config["platform"] == "tensorrt_plan"
    assert [spec["batch_size"] for spec in config["optimization"]["cuda"]["graph_spec"]] == [1, 2, 4]
    assert len(config["cc_model_filenames"]) == (2 if model == "plans" else 0)
    clips = random_crops(served.bundle, 4)
    with ve.open_session(served.server.url(model)) as session:
        assert session.batches == (1, 4)
        np.testing.assert_array_equal(session.infer(clips), graph.run(clips)["logits"])


@pytest.mark.field_case("server 4445")
def test_a_larger_batch_is_split(served: Served, graph: OnnxRuntimeSession) -> None:
    clips = random_crops(served.bundle, 11)
    with ve.open_session(served.server.url("demo")) as session:
        np.testing.assert_array_equal(session.infer(clips), graph.run_in_batches(clips, 8)["logits"])


def test_labels_are_known_to_the_classification_extension(served: Served, graph: OnnxRuntimeSession) -> None:
    clips = random_crops(served.bundle, 1)
    frames = {"name": "frames", "datatype": "UINT8", "shape": list(clips.shape), "data": clips.reshape(-1).tolist()}
    request = {"inputs": [frames], "outputs": [{"name": "logits", "parameters": {"classification": 1}}]}
    url = f"http://127.0.0.1:{served.server.http}/v2/models/demo/infer"
    with urllib.request.urlopen(url, json.dumps(request).encode(), timeout=20) as answer:
        (entry,) = json.load(answer)["outputs"][0]["data"]
    best = int(graph.run(clips)["logits"][0].argmax())
    assert entry.split(":")[1:] == [str(best), served.bundle.contract.labels[best]]


# --- batching and warm-up ----------------------------------------------------------------------


def test_batches_were_warmed_up_before_the_server_was_ready(served: Served) -> None:
    assert set(served.warmed_up["demo"]) == {1, 4, 8}
    assert set(served.warmed_up["plan"]) == {1, 2, 4}


def test_two_hundred_requests_at_once_lose_nothing_and_share_batches(
    served: Served, graph: OnnxRuntimeSession, backend: TritonBackend
) -> None:
    clips = random_crops(served.bundle, 200)
    before = served.executions("demo")
    with ThreadPoolExecutor(8) as pool:
        waiting = list(pool.map(lambda i: backend.submit(clips[i : i + 1]), range(len(clips))))
        rows = np.concatenate([future.result()["logits"] for future in waiting])
    np.testing.assert_allclose(rows, graph.run_in_batches(clips, 8)["logits"], rtol=0, atol=OTHER_BATCH)
    after = served.executions("demo")
    grown = {size: count - before.get(size, 0) for size, count in after.items()}
    assert sum(size * count for size, count in grown.items()) == 200
    assert sum(grown.values()) < 150  # on a quiet machine some thirty: nearly all full


def test_it_can_be_awaited(served: Served, graph: OnnxRuntimeSession, backend: TritonBackend) -> None:
    clips = random_crops(served.bundle, 6)

    async def ask() -> list[dict[str, Any]]:
        return await asyncio.gather(*(backend.run_async(clips[i : i + 2]) for i in range(0, 6, 2)))

    rows = np.concatenate([answer["logits"] for answer in asyncio.run(ask())])
    np.testing.assert_allclose(rows, graph.run(clips)["logits"], rtol=0, atol=OTHER_BATCH)


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "query"), WAYS)
@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1, 7, 64, 64, 3), "uint8", r"unexpected shape for input 'frames' for model 'demo'.*got \[1,7,64,64,3\]"),
        (
            (1, 8, 64, 64, 3),
            "float32",
            "inference input 'frames' data-type is 'FP32', but model 'demo' expects 'UINT8'",
        ),
        ((9, 8, 64, 64, 3), "uint8", "inference request batch-size must be <= 8 for 'demo'"),
    ],
)
@pytest.mark.field_case("server 2768")
def test_a_wrong_batch_is_refused_with_the_servers_sentence(
    served: Served, protocol: str, query: str, shape: tuple[int, ...], dtype: str, said: str
) -> None:
    opened = TritonBackend(parse_address(served.server.url("demo", protocol, query)))
    try:
        with pytest.raises(EnvironmentFault, match=rf"refuses a batch of {shape[0]}: .*{said}"):
            opened.run(np.zeros(shape, dtype))
    finally:
        opened.close()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_model_that_is_not_there(served: Served, protocol: str) -> None:
    with pytest.raises(EnvironmentFault, match="has no model 'nonsense'; it has: demo, demo-frames, "):
        ve.open_session(served.server.url("nonsense", protocol))
    with pytest.raises(EnvironmentFault, match=r"'demo' of the Triton server at .* is not ready: .*version 3"):
        ve.open_session(served.server.url("demo/3", protocol))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("demo-video", "takes whole video files, as vivit predict sends them; to send clips, use the model demo"),
        (
            "views-video",
            "takes whole video files, as vivit predict sends them; to send clips, use the model views",
        ),
        ("demo-frames", "takes videos but predicts nothing; use demo-video for videos, or demo for clips"),
    ],
)
def test_a_model_that_takes_videos_is_not_one_that_takes_frames(served: Served, model: str, said: str) -> None:
    with pytest.raises(EnvironmentFault, match=rf"{model}' of .* {said}$"):
        ve.open_session(served.server.url(model))


def test_a_wrong_port_is_one_sentence(served: Served) -> None:
    ports = {"triton": (served.server.http, free_port()), "triton+http": (served.server.grpc, free_port())}
    for scheme, numbers in ports.items():
        for port in numbers:
            with pytest.raises(EnvironmentFault, match=rf"no Triton server answers at 127\.0\.0\.1:{port} ") as caught:
                ve.open_session(f"{scheme}://127.0.0.1:{port}/demo?timeout=5")
            assert "\n" not in str(caught.value) and "\\x" not in str(caught.value)


def test_a_server_with_another_bundle_is_not_taken_for_this_one(served: Served, bundles: Bundles) -> None:
    url = served.server.url("demo")
    with ve.open_session(served.bundle, prefer=url) as session:
        assert session.engine == "triton"
    with pytest.raises(BundleError, match=r"demo at .* was deployed from another graph than"):
        ve.open_session(bundles.demo(precision="fp16"), prefer=url)


def test_choices_for_this_machine_do_not_go_with_a_server(served: Served) -> None:
    url = served.server.url("demo")
    with pytest.raises(UsageError, match="cpu is a choice for engines on this machine"):
        ve.open_session(url, device="cpu")
    with pytest.raises(UsageError, match="openvino cannot be chosen"):
        ve.open_session(url, prefer="openvino")


def test_without_tritonclient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tritonclient.grpc", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "vivit-export\[triton\]"'):
        ve.open_session("triton://127.0.0.1:1/demo")


# --- a server that comes and goes --------------------------------------------------------------


def test_a_server_may_go_and_come_back(
    served: Served, graph: OnnxRuntimeSession, own_blocks: Callable[[], int], tmp_path: Path
) -> None:
    clips = random_crops(served.bundle, 2)
    expected = graph.run(clips)["logits"]
    server = TritonServer(served.installed, served.backends, served.repositories[:1], tmp_path)
    with running(server):
        url = server.url("demo", query="?shared_memory=yes&retries=1")
        with ve.open_session(url) as session, ve.open_session(f"{url}&timeout=0.5") as impatient:
            np.testing.assert_array_equal(session.infer(clips), expected)
            with pytest.raises(EnvironmentFault, match=r"did not answer within 0\.5 s to a batch of 2"):
                impatient.infer(slow(clips))
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(session.infer, slow(clips))
                time.sleep(0.5)
                server.kill()
                with pytest.raises(EnvironmentFault, match=r"is gone or overloaded: 2 attempts to run a batch of 2"):
                    waiting.result()
            server.start()
            np.testing.assert_array_equal(session.infer(clips), expected)
            http = ve.open_session(server.url("demo", "http"))
            np.testing.assert_array_equal(http.infer(clips), expected)
            http.close()
        assert server.stop() == 0
    assert own_blocks() == 0


def test_a_port_in_use_is_said(served: Served, tmp_path: Path) -> None:
    server = TritonServer(served.installed, served.backends, served.repositories[:1], tmp_path)
    server.grpc = served.server.grpc
    with pytest.raises(AssertionError, match=f"Socket '127.0.0.1:{server.grpc}' already in use"):
        server.start()

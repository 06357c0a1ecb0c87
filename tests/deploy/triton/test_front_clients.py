"""Clients that are killed in the middle of a request: a real server goes on, and answers all others rightly."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import need

import vivit_export as ve
from vivit_export.demo import clips_path

need("tritonclient")
import tritonclient.grpc as triton  # noqa: E402
from triton_server import Served, TritonServer, running  # noqa: E402

VIDEO = sorted(clips_path().glob("*.mp4"))[0]
# Eight requests at once over one connection; those of the second kind are in the engine for seconds.
CLIENT = """
import sys, time
import numpy as np, tritonclient.grpc as triton
address, model, name, path = sys.argv[1:]
rows = np.load(path)
tensor = triton.InferInput(name, list(rows.shape), {"uint8": "UINT8", "float32": "FP32"}[str(rows.dtype)])
tensor.set_data_from_numpy(rows)
client = triton.InferenceServerClient(address)
for _ in range(8):
    client.async_infer(model, [tensor], lambda result, error: None)
print("asking", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def server(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("killed")
    made = TritonServer(served.installed, served.backends, served.repositories[:1], folder)
    with running(made):
        yield made


def kill_a_client(server: TritonServer, model: str, name: str, rows: np.ndarray, folder: Path, after: float) -> None:
    np.save(folder / "rows.npy", rows)
    command = [sys.executable, "-c", CLIENT, f"127.0.0.1:{server.grpc}", model, name, str(folder / "rows.npy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None and client.stdout.readline() == "asking\n"
        time.sleep(after)
        client.kill()


@pytest.mark.parametrize("after", [0.0, 0.3])
def test_the_engine(server: TritonServer, served: Served, tmp_path: Path, after: float) -> None:
    clip = served.bundle.contract.clip
    shape = (5, clip.num_frames, clip.height, clip.width, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    source = served.bundle.contract.io.inputs[0]
    slow = np.zeros((1, *(int(size) for size in source.shape[1:])), source.dtype)
    slow.view(np.uint8).reshape(-1)[:4] = np.frombuffer(b"slow", np.uint8)
    with (
        ve.open_session(served.bundle.path, prefer="onnxruntime-cpu") as here,
        ve.open_session(server.url("demo")) as there,
    ):
        kill_a_client(server, "demo", source.name, slow, tmp_path, after)
        for size in (5, 1, 3):
            np.testing.assert_allclose(there.infer(clips[:size]), here.infer(clips[:size]), rtol=0, atol=5e-6)
    assert server.is_running


def test_the_reader_of_videos(server: TritonServer, served: Served, tmp_path: Path) -> None:
    rows = np.frombuffer(VIDEO.read_bytes(), np.uint8)[None]
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        video = triton.InferInput("video", list(rows.shape), "UINT8")
        video.set_data_from_numpy(rows)
        known = client.infer("demo-video", [video], client_timeout=60).as_numpy("logits")
        kill_a_client(server, "demo-video", "video", rows, tmp_path, 0.05)
        found = client.infer("demo-video", [video], client_timeout=60).as_numpy("logits")
    np.testing.assert_allclose(found, known, rtol=0, atol=5e-6)


def test_the_log_has_no_errors_of_ours(server: TritonServer) -> None:
    """Of what goes over the border to Triton's Python back end, in either direction."""
    said = server.log.read_text()
    assert "PyCapsule" not in said and "Traceback" not in said

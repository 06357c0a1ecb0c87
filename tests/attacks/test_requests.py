"""Hostile requests to a real tritonserver with what ``vivit deploy triton`` wrote: an error for each, and it goes on.

After each, the server still answers a good request with the same numbers.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from attacked import BYTES
from bundles import need, random_crops
from hostile_videos import VIDEOS
from triton_server import Served

from vivit_export.demo import clips_path

need("tritonclient")
import tritonclient.grpc as triton  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

CLIP = sorted(clips_path().glob("*.mp4"))[0]
SECONDS = 20.0
"""How long an answer may take on a machine that is busy."""
Answer = tuple[int, bytes]


class Client:
    """Sends requests as they are, and a good one to compare."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._crops = random_crops(served.bundle, 1)
        self._grpc = triton.InferenceServerClient(f"127.0.0.1:{served.server.grpc}")
        self.good = self.ask()

    @property
    def port(self) -> int:
        return self._served.server.http

    @property
    def grpc_port(self) -> int:
        return self._served.server.grpc

    @property
    def is_running(self) -> bool:
        return self._served.server.is_running

    @property
    def memory(self) -> int:
        """Resident bytes of the server and its children."""
        assert self._served.server.process is not None
        parent = psutil.Process(self._served.server.process.pid)
        return sum(process.memory_info().rss for process in [parent, *parent.children(recursive=True)])

    @property
    def shape(self) -> list[int]:
        return list(self._crops.shape)

    def ask(self) -> npt.NDArray[np.float32]:
        """Logits of a clip and of a video."""
        clip = triton.InferInput("frames", self.shape, "UINT8")
        clip.set_data_from_numpy(self._crops)
        rows = np.frombuffer(CLIP.read_bytes(), np.uint8)[None]
        video = triton.InferInput("video", list(rows.shape), "UINT8")
        video.set_data_from_numpy(rows)
        asked = (("demo", clip), ("demo-video", video))
        answers = [self._grpc.infer(model, [source], client_timeout=60).as_numpy("logits") for model, source in asked]
        return np.concatenate(answers)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None, method: str = "POST") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (ConnectionError, http.client.RemoteDisconnected):  # an answer, too
            return 400, b""
        finally:
            connection.close()

    def send(self, data: bytes, port: int | None = None) -> bytes:
        """Write bytes to a port, and return what comes until it is closed, or for two seconds."""
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=2) as connection:
            connection.sendall(data)
            found = b""
            try:
                while piece := connection.recv(65536):
                    found += piece
            except TimeoutError:
                pass
            return found

    def close(self) -> None:
        self._grpc.close()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    opened = Client(served)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def goes_on(client: Client) -> Iterator[None]:
    before = client.memory
    yield
    assert client.is_running
    np.testing.assert_allclose(client.ask(), client.good, rtol=0, atol=5e-6)
    assert client.memory - before < BYTES


def is_refusal(answer: Answer) -> None:
    status, body = answer
    assert 400 <= status < 600, answer
    text = body.decode("utf-8", errors="replace")
    assert len(text) < 5000
    assert "Traceback" not in text and "/proc/" not in text and "root:" not in text


# --- what Triton itself reads --------------------------------------------------------------------

INFER = "/v2/models/demo/infer"


def tensor(client: Client, **changes: Any) -> dict[str, Any]:
    size = int(np.prod(client.shape))
    made = {"name": "frames", "datatype": "UINT8", "shape": client.shape, "data": [0] * size}
    return {name: value for name, value in {**made, **changes}.items() if value is not ...}


def request(*inputs: Any, **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


Attack = Callable[[Client], bytes]
BODIES: dict[str, Attack] = {
    "nothing": lambda c: b"",
    "no JSON": lambda c: b"{nonsense",
    "a list": lambda c: b"[]",
    "10,000 levels": lambda c: b"[" * 10_000,
    "10,000 levels of inputs": lambda c: b'{"inputs": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "no inputs": lambda c: b"{}",
    "inputs that are text": lambda c: b'{"inputs": "all"}',
    "an input that is null": lambda c: request(None),
    "an input without a name": lambda c: request(tensor(c, name=...)),
    "an input of another name": lambda c: request(tensor(c, name="x")),
    "two inputs": lambda c: request(tensor(c), tensor(c, name="y")),
    "the same input twice": lambda c: request(tensor(c), tensor(c)),
    "another type": lambda c: request(tensor(c, datatype="FP32")),
    "an unknown type": lambda c: request(tensor(c, datatype="UINT9")),
    "a type that is a number": lambda c: request(tensor(c, datatype=7)),
    "bytes": lambda c: request(tensor(c, datatype="BYTES", data=["x"])),
    "a clip too short": lambda c: request(tensor(c, shape=[1, *[n - 1 for n in c.shape[1:]]])),
    "another rank": lambda c: request(tensor(c, shape=c.shape[1:])),
    "no shape": lambda c: request(tensor(c, shape=...)),
    "a shape of nothing": lambda c: request(tensor(c, shape=[])),
    "a negative side": lambda c: request(tensor(c, shape=[-1, *c.shape[1:]])),
    "no clip": lambda c: request(tensor(c, shape=[0, *c.shape[1:]], data=[])),
    "2^62 clips": lambda c: request(tensor(c, shape=[2**62, *c.shape[1:]])),
    "a side of 2^70": lambda c: request(tensor(c, shape=[2**70, *c.shape[1:]])),
    "a side that is text": lambda c: request(tensor(c, shape=["1", *c.shape[1:]])),
    "1,000 sides": lambda c: request(tensor(c, shape=[1] * 1000)),
    "too many clips": lambda c: request(tensor(c, shape=[99, *c.shape[1:]], data=[0] * 99 * int(np.prod(c.shape)))),
    "data that are too few": lambda c: request(tensor(c, data=[0])),
    "data that are too many": lambda c: request(tensor(c, data=[0] * (int(np.prod(c.shape)) + 1))),
    "no data": lambda c: request(tensor(c, data=...)),
    "data that are null": lambda c: request(tensor(c, data=None)),
    "text as data": lambda c: request(tensor(c, data=["a"] * int(np.prod(c.shape)))),
    "an unknown output": lambda c: request(tensor(c), outputs=[{"name": "../../etc/passwd"}]),
    "an output that is a number": lambda c: request(tensor(c), outputs=[7]),
    "1,000,000 outputs": lambda c: request(tensor(c), outputs=[{"name": "x"}] * 100_000),
    "bytes that are not there": lambda c: request(tensor(c, data=..., parameters={"binary_data_size": 10**9})),
    "bytes of a negative size": lambda c: request(tensor(c, data=..., parameters={"binary_data_size": -1})),
    "an unknown region of memory": lambda c: request(
        tensor(c, data=..., parameters={"shared_memory_region": "../x", "shared_memory_byte_size": 10**12})
    ),
    "a sequence of a stateless model": lambda c: request(tensor(c, data=[0]), parameters={"sequence_id": "x" * 10**6}),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_hostile_body_is_refused(client: Client, body: Attack) -> None:
    start = time.monotonic()
    is_refusal(client.post(INFER, body(client)))
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("stated", ["0", "1", "-1", "99999999999", "99999999999999999999999", "x", ""])
def test_a_header_that_lies_about_its_length_is_refused(client: Client, stated: str) -> None:
    """Where the JSON ends, and bytes begin."""
    body = request(tensor(client, data=..., parameters={"binary_data_size": 4})) + bytes(4)
    is_refusal(client.post(INFER, body, {"Inference-Header-Content-Length": stated}))


PATHS = {
    "an unknown model": "/v2/models/nothing/infer",
    "a model of no name": "/v2/models//infer",
    "a path above": "/v2/models/../../../etc/passwd/infer",
    "an escaped path above": "/v2/models/%2e%2e%2f%2e%2e%2fetc/infer",
    "a name of 60,000 characters": f"/v2/models/{'x' * 60_000}/infer",
    "an unknown version": "/v2/models/demo/versions/99/infer",
    "a version that is none": "/v2/models/demo/versions/-1/infer",
    "a version of 2^80": f"/v2/models/demo/versions/{2**80}/infer",
    "a load that is not allowed": "/v2/repository/models/demo/load",
    "an unload that is not allowed": "/v2/repository/models/demo/unload",
    "a configuration with a model in it": "/v2/repository/models/evil/load",
    "memory of somebody else": "/v2/systemsharedmemory/region/x/register",
    "nothing of Triton's": "/etc/passwd",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_hostile_path_is_refused(client: Client, path: str) -> None:
    fields = {"parameters": {"config": '{"backend": "python"}', "file:1/model.py": "cHJpbnQoMSk="}}
    fields |= {"key": "/../../etc/passwd", "offset": 0, "byte_size": 2**62}  # type: ignore[dict-item]
    is_refusal(client.post(path, json.dumps(fields).encode()))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "CONNECT", "NONSENSE"])
def test_another_method_is_refused(client: Client, method: str) -> None:
    is_refusal(client.post(INFER, b"{}", method=method))


RAW = {
    "nothing of HTTP": b"\x00\xff" * 1000,
    "a header of a megabyte": b"POST /v2 HTTP/1.1\r\nX: " + b"x" * 10**6 + b"\r\n\r\n",
    "100,000 headers": b"POST /v2 HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    "a body that does not come": b"POST /v2/models/demo/infer HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n{",
    "a negative length": b"POST /v2/models/demo/infer HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}",
    "two lengths": b"POST /v2/models/demo/infer HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 9\r\n\r\n{}",
    "chunks of 2^64": b"POST /v2/models/demo/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 16,
    "the beginning of a request": b"POST /v2/mod",
}


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_bytes_that_are_no_request_bring_nothing_down(client: Client, data: bytes, protocol: str) -> None:
    try:
        said = client.send(data, client.port if protocol == "http" else client.grpc_port)
    except OSError:  # it closed the connection
        said = b""
    assert b"200 OK" not in said


def test_many_connections_that_say_nothing_do_not_keep_others_out(client: Client) -> None:
    opened = [socket.create_connection(("127.0.0.1", client.port), timeout=5) for _ in range(300)]
    try:
        for connection in opened:
            connection.sendall(b"POST /v2/models/demo/infer HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
        np.testing.assert_allclose(client.ask(), client.good, rtol=0, atol=5e-6)
    finally:
        for connection in opened:
            connection.close()


# --- what the front reads ------------------------------------------------------------------------


def ask_video(client: Client, model: str, data: bytes, **changes: Any) -> str:
    """Send bytes as a video, and return why they are refused."""
    header = {"name": "video", "datatype": "UINT8", "shape": [1, len(data)], **changes}
    fields = json.dumps({"inputs": [{**header, "parameters": {"binary_data_size": len(data)}}]}).encode()
    answer = client.post(
        f"/v2/models/{model}/infer", fields + data, {"Inference-Header-Content-Length": str(len(fields))}
    )
    is_refusal(answer)
    return str(json.loads(answer[1])["error"])


@pytest.mark.parametrize("name", VIDEOS)
def test_a_hostile_video_is_refused(client: Client, tmp_path: Path, name: str) -> None:
    VIDEOS[name](tmp_path / name)
    start = time.monotonic()
    said = ask_video(client, "demo-video", (tmp_path / name).read_bytes())
    assert time.monotonic() - start < SECONDS
    assert "the video " in said and name not in said


@pytest.mark.parametrize("model", ["demo-video", "views-video", "demo-frames"])
@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (b"", {}),
        (b"\0" * 100, {}),
        (b"x" * 100, {"datatype": "INT8"}),
        (b"x" * 100, {"shape": [100]}),
        (b"x" * 100, {"shape": [1, 100, 1]}),
        (b"x" * 100, {"shape": [1, 10**12]}),
        (b"x" * 100, {"shape": [10**6, 100]}),
        (struct.pack("<I", 2**32 - 1) + b"x" * 96, {"datatype": "BYTES", "shape": [1, 1]}),
        (struct.pack("<I", 96) + b"x" * 96, {"datatype": "BYTES", "shape": [1, 1]}),
    ],
    ids=["empty", "zeros", "another type", "one side", "three sides", "more than there is", "a million videos",
         "text of 4 GB", "text"],
)  # fmt: skip
def test_what_is_no_video_is_refused(client: Client, model: str, data: bytes, changes: dict[str, Any]) -> None:
    ask_video(client, model, data, **changes)


def test_good_and_bad_requests_at_once_get_each_its_own_answer(client: Client) -> None:
    """In one batch of the front, too."""
    rows = [CLIP.read_bytes(), b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", CLIP.read_bytes()[:2000], b"\0"] * 4
    grpc = triton.InferenceServerClient(f"127.0.0.1:{client.grpc_port}")
    found: dict[int, Any] = {}

    def keep(number: int, result: Any, error: InferenceServerException | None) -> None:
        found[number] = error if error is not None else result.as_numpy("logits")

    for number, data in enumerate(rows):
        video = triton.InferInput("video", [1, len(data)], "UINT8")
        video.set_data_from_numpy(np.frombuffer(data, np.uint8)[None])
        grpc.async_infer("demo-video", [video], lambda result, error, n=number: keep(n, result, error))
    deadline = time.monotonic() + 60
    while len(found) < len(rows) and time.monotonic() < deadline:
        time.sleep(0.02)
    grpc.close()
    for number in range(len(rows)):
        if number % 4:
            assert isinstance(found[number], InferenceServerException) and "the video" in str(found[number])
        else:
            np.testing.assert_allclose(found[number], client.good[1:], rtol=0, atol=5e-6)

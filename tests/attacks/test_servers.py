"""Hostile servers where a served model should be: an error of one sentence for each answer, and no labels."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from bundles import need
from made_bundle import contract

import vivit_export as ve
from vivit_export.errors import VivitExportError
from vivit_export.records import to_json
from vivit_export.runtime.session.triton.address import parse_address
from vivit_export.runtime.session.triton.client import TritonBackend
from vivit_export.runtime.session.triton.protocol import CONTRACT, ENGINE, ONNX_SHA256

need("tritonclient")

IO = {
    "inputs": [{"name": "frames", "datatype": "UINT8", "shape": [-1, 32, 224, 224, 3]}],
    "outputs": [
        {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "embedding", "datatype": "FP32", "shape": [-1, 768]},
    ],
}
PARAMETERS = {CONTRACT: json.dumps(to_json(contract())), ONNX_SHA256: "0" * 64, ENGINE: "onnxruntime"}
SERVER = {"name": "triton", "version": "2.51.0", "extensions": []}
METADATA = {"name": "m", "versions": ["1"], "platform": "onnxruntime_onnx", **IO}
CONFIG = {
    "name": "m",
    "max_batch_size": 4,
    "parameters": {name: {"string_value": value} for name, value in PARAMETERS.items()},
}
LOGITS = {"name": "logits", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}
EMBEDDING = {"name": "embedding", "datatype": "FP32", "shape": [1, 768], "data": [0.0] * 768}
Answers = dict[str, Any]
GOOD: Answers = {"/v2": SERVER, "/v2/models/m": METADATA, "/v2/models/m/config": CONFIG, "infer": [LOGITS, EMBEDDING]}


@contextmanager
def serving(answers: Answers) -> Iterator[str]:
    """The address of a model of a server that answers so; bytes are sent as they are."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(answers.get(self.path))

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            size = int(self.headers.get("Inference-Header-Content-Length", len(sent)))
            outputs = answers["infer"]
            if isinstance(outputs, list):
                outputs = {"model_name": "m", "id": json.loads(sent[:size])["id"], "outputs": outputs}
            self._answer(outputs)

        def _answer(self, content: Any) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            for name, value in answers.get("headers", {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"triton+http://127.0.0.1:{server.server_port}/m?timeout=5&retries=0"
    finally:
        server.shutdown()
        server.server_close()


def infer(answers: Answers) -> np.ndarray[Any, Any]:
    with serving(answers) as address, ve.open_session(address) as session:
        return session.infer(np.zeros((1, 32, 224, 224, 3), np.uint8))


def test_a_good_one_is_believed() -> None:
    np.testing.assert_array_equal(infer(GOOD), [[1, 2, 3]])


DEEP = b"[" * 100_000
WITH = {
    "a list": [],
    "text": "x",
    "a number": 7,
    "nothing": None,
    "not JSON": b"<html>",
    "no text": b"\xff\xfe",
    "deep": DEEP,
    "empty": b"",
}


@pytest.mark.parametrize("path", ["/v2", "/v2/models/m", "/v2/models/m/config", "infer"])
@pytest.mark.parametrize("what", list(WITH))
def test_something_else_in_place_of_an_object(path: str, what: str) -> None:
    value = WITH[what]
    refuse({**GOOD, path: {"outputs": value} if path == "infer" and not isinstance(value, bytes) else value})


PARTS: dict[str, Answers] = {
    "parameters are a list": {"/v2/models/m/config": {**CONFIG, "parameters": []}},
    "a parameter is text": {"/v2/models/m/config": {**CONFIG, "parameters": dict(PARAMETERS)}},
    "a value is a number": {
        "/v2/models/m/config": {**CONFIG, "parameters": {name: {"string_value": 3} for name in PARAMETERS}}
    },
    "a deep contract": {
        "/v2/models/m/config": {
            **CONFIG,
            "parameters": {**CONFIG["parameters"], CONTRACT: {"string_value": DEEP.decode()}},  # type: ignore[dict-item]
        }
    },
    "inputs are a number": {"/v2/models/m": {**METADATA, "inputs": 3}},
    "an input is text": {"/v2/models/m": {**METADATA, "inputs": ["frames"]}},
    "an input without a shape": {"/v2/models/m": {**METADATA, "inputs": [{"name": "frames", "datatype": "UINT8"}]}},
    "a size is text": {
        "/v2/models/m": {**METADATA, "inputs": [{"name": "frames", "datatype": "UINT8", "shape": ["x"]}]}
    },
    "a name is a list": {"/v2/models/m": {**METADATA, "inputs": [{"name": [], "datatype": "UINT8", "shape": [1]}]}},
    "no outputs": {"infer": []},
    "one output is missing": {"infer": [EMBEDDING]},
    "an output is text": {"infer": ["logits"]},
    "another shape": {"infer": [{**LOGITS, "shape": [1, 4]}, EMBEDDING]},
    "a huge shape": {"infer": [{**LOGITS, "shape": [1, 10**18]}, EMBEDDING]},
    "a negative shape": {"infer": [{**LOGITS, "shape": [-1, -1]}, EMBEDDING]},
    "a shape is text": {"infer": [{**LOGITS, "shape": "x"}, EMBEDDING]},
    "two rows": {"infer": [{**LOGITS, "shape": [2, 3], "data": [0.0] * 6}, EMBEDDING]},
    "text for numbers": {"infer": [{**LOGITS, "datatype": "BYTES", "data": ["a", "b", "c"]}, EMBEDDING]},
    "an unknown type": {"infer": [{**LOGITS, "datatype": "FP128"}, EMBEDDING]},
    "no data": {"infer": [{name: LOGITS[name] for name in ("name", "datatype", "shape")}, EMBEDDING]},
    "binary data that are not there": {
        "infer": [{**LOGITS, "parameters": {"binary_data_size": 10**12}}, EMBEDDING],
        "headers": {"Inference-Header-Content-Length": "40"},
    },
    "a header that is not a number": {"headers": {"Inference-Header-Content-Length": "x"}},
    "an answer that is not gzip": {"headers": {"Content-Encoding": "gzip"}},
}


@pytest.mark.parametrize("what", list(PARTS))
def test_a_part_that_is_wrong(what: str) -> None:
    refuse({**GOOD, **PARTS[what]})


def refuse(answers: Answers) -> None:
    """Expect an error of ours, in one sentence that is not too long."""
    with pytest.raises(VivitExportError) as caught:
        infer(answers)
    said = str(caught.value)
    assert len(said.splitlines()) == 1 and len(said) < 1000


@pytest.mark.parametrize("largest", [10**15, "many", [4], None, -3])
def test_the_largest_batch_is_bounded(largest: object) -> None:
    """It decides how many clips are sent at once, and how large shared memory is."""
    config = {**CONFIG, "max_batch_size": largest}
    with serving({**GOOD, "/v2/models/m/config": config}) as address:
        backend = TritonBackend(parse_address(address))
        backend.close()
    assert backend.batches == (1, 1024 if largest == 10**15 else 1)

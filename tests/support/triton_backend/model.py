"""A stand-in for Triton's onnxruntime and tensorrt back ends, which no package brings: ONNX Runtime on the CPU.

Triton takes it as a "Python-based back end", so that it serves a repository's own config.pbtxt,
unchanged. A ``.plan`` in the tests holds an ONNX graph. Like the real ones it runs the requests of
a batch as one. A clip that begins with "slow" takes seconds, so that a test can act meanwhile.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb

from vivit_export.deploy.triton.handover import tensor_of

SLOW_SECONDS = 3


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        name = next(iter(config["cc_model_filenames"].values()), config["default_model_filename"])
        path = Path(args["model_repository"]) / args["model_version"] / name
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.source = config["input"][0]["name"]
        self.outputs = [output["name"] for output in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        # DLPack: this server's own conversions were compiled for NumPy 1 and give zeros with NumPy 2.
        batches = [np.from_dlpack(pb.get_input_tensor_by_name(request, self.source)) for request in requests]
        if any(batch.reshape(-1)[:4].tobytes() == b"slow" for batch in batches):
            time.sleep(SLOW_SECONDS)
        results = self.session.run(self.outputs, {self.source: np.concatenate(batches)})
        responses, start = [], 0
        for batch, request in zip(batches, requests, strict=True):
            wanted = set(request.requested_output_names())
            rows = slice(start, start + len(batch))
            start += len(batch)
            outputs = zip(self.outputs, results, strict=True)
            tensors = [tensor_of(pb, name, array[rows]) for name, array in outputs if name in wanted]
            responses.append(pb.InferenceResponse(tensors))
        return responses

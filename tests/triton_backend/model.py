"""A stand-in for Triton's onnxruntime and tensorrt back ends, which no package brings: ONNX Runtime on the CPU.

Triton takes it as a "Python-based back end", so that it serves a repository's own config.pbtxt,
unchanged. A ``.plan`` in the tests holds an ONNX graph. Like the real ones it runs the requests of
a batch as one.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        name = config["default_model_filename"] or next(iter(config["cc_model_filenames"].values()))
        path = Path(args["model_repository"]) / args["model_version"] / name
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.source = config["input"][0]["name"]
        self.outputs = [output["name"] for output in config["output"]]

    def execute(self, requests):
        batches = [pb.get_input_tensor_by_name(request, self.source).as_numpy() for request in requests]
        if any(batch.reshape(-1)[:8].tobytes() == b"slowness" for batch in batches):
            import time

            time.sleep(5)  # long enough for a test to act while the request is under way
        results = self.session.run(self.outputs, {self.source: np.concatenate(batches)})
        responses, start = [], 0
        for batch, request in zip(batches, requests, strict=True):
            wanted = set(request.requested_output_names())
            rows = slice(start, start + len(batch))
            start += len(batch)
            tensors = [pb.Tensor(n, r[rows]) for n, r in zip(self.outputs, results, strict=True) if n in wanted]
            responses.append(pb.InferenceResponse(tensors))
        return responses

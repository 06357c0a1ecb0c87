"""Names shared by the client and the models that `vivit_export.deploy.triton` writes."""

from __future__ import annotations

CONTRACT = "vivit_contract"
"""Parameter of a model: its contract as JSON."""
ONNX_SHA256 = "vivit_onnx_sha256"
"""Parameter of a model: hash of the graph that it was made from."""
ENGINE = "vivit_engine"
"""Parameter of a model: the engine, for people."""

VIDEO = "video"
"""Input of a model that takes encoded videos."""
FRAMES_SUFFIX, VIDEO_SUFFIX = "-frames", "-video"
"""Suffix of the models that run before the model NAME."""
SUBJECT = "the video"
"""What a refusal of a video begins with on the server; who knows its name puts that there."""
DATATYPES = {"uint8": "UINT8", "float32": "FP32", "float16": "FP16"}
"""Types of tensors as the protocol writes them, by their names in the contract."""

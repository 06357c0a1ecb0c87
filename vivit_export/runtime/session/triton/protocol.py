"""Names that the client and the models that `vivit_export.deploy.triton` writes agree on."""

from __future__ import annotations

CONTRACT = "vivit_contract"
"""Parameter of a model: its contract as JSON."""
ONNX_SHA256 = "vivit_onnx_sha256"
"""Parameter of a model: hash of the graph that it was made of."""
ENGINE = "vivit_engine"
"""Parameter of a model: what runs, for people."""

VIDEO = "video"
"""Input of a model that takes encoded videos."""
FRAMES_SUFFIX, VIDEO_SUFFIX = "-frames", "-video"
"""What the models in front of the model NAME are called."""
SUBJECT = "the video"
"""What a refusal of a video begins with on the server; who knows its name puts that there."""

"""Every activation that transformers knows is traced as the function that transformers computes."""

from __future__ import annotations

import numpy as np
import pytest
import transformers.activations
from checkpoints import Checkpoints, assert_as_hugging_face, normal_pixels
from graphs import run_ort

ELSEWHERE = {"gelu_fast", "gelu_new", "gelu_pytorch_tanh", "gelu", "relu"}  # test_trace.py
ALIKE = {"swish": "silu", "gelu_python_tanh": "gelu_pytorch_tanh"}  # the same class or function: one is enough
ROUNDED = {"xielu"}  # transformers keeps its two parameters in bfloat16, and rounds what it makes of them


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("activation", sorted({*transformers.activations.ACT2FN} - ELSEWHERE - {*ALIKE}))
def test_graph_computes_every_activation(checkpoints: Checkpoints, activation: str) -> None:
    checkpoint = checkpoints.load(hidden_act=activation)
    pixels = normal_pixels(checkpoint, 2)
    got = run_ort(checkpoints.trace(hidden_act=activation), pixels)
    if activation in ROUNDED:
        for name, expected in checkpoint.run_eager(pixels).items():
            np.testing.assert_allclose(got[name], expected, rtol=0, atol=float(2e-6 * np.ptp(expected)))
    else:
        assert_as_hugging_face(got, checkpoints.folder(hidden_act=activation), pixels)

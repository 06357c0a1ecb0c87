"""The taps of the eager network are Hugging Face's own hidden states, and a run leaves no trace on the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Checkpoints, normal_pixels

from vivit_export.export.checkpoint.tapped_network import run_tapped
from vivit_export.precision import Precision


@pytest.mark.parametrize("headless", [False, True])
def test_taps_are_the_hidden_states_of_transformers(checkpoints: Checkpoints, headless: bool) -> None:
    checkpoint = checkpoints.load(num_hidden_layers=2, headless=headless)
    pixels = normal_pixels(checkpoint, 1)
    found, outputs = run_tapped(checkpoint, pixels, Precision.FP32)
    encoder: Any = checkpoint.encoder
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(pixels), output_hidden_states=True)
        halves = [attention_half(layer, x) for layer, x in zip(encoder.layers, expected.hidden_states, strict=False)]
    states = [state.numpy() for state in expected.hidden_states]
    assert len(found) == 2 * 2 + 2 + (not headless)
    for tap, state in zip(found[0:5:2], states, strict=False):
        np.testing.assert_allclose(tap, state, rtol=0, atol=1e-5)
    for tap, half in zip(found[1:5:2], halves, strict=True):
        np.testing.assert_allclose(tap, half, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[5], expected.last_hidden_state.numpy(), rtol=0, atol=1e-5)
    for name, array in checkpoint.run_eager(pixels).items():
        assert np.array_equal(outputs[name], array)


def attention_half(layer: Any, hidden: torch.Tensor) -> Any:
    return (hidden + layer.attention(layer.layernorm_before(hidden))[0]).numpy()


def test_another_type_is_left_behind_with_its_hooks(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints.load(num_hidden_layers=2)
    pixels = normal_pixels(checkpoint, 1)
    before, _ = run_tapped(checkpoint, pixels, Precision.FP32)
    low, outputs = run_tapped(checkpoint, pixels, Precision.FP16)
    assert {array.dtype for array in low} == {np.dtype(np.float32)}
    assert all(np.array_equal(x, x.astype(np.float16)) for x in low)
    assert np.array_equal(outputs["logits"], checkpoint.run_eager(pixels, Precision.FP16)["logits"])
    again, _ = run_tapped(checkpoint, pixels, Precision.FP32)
    assert len(again) == len(before)
    assert all(np.array_equal(a, b) for a, b in zip(before, again, strict=True))

"""The network that engines are timed against."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Checkpoints, normal_pixels

from vivit_export.export.checkpoint.load import load_checkpoint
from vivit_export.export.checkpoint.timed_network import TimedNetwork
from vivit_export.precision import Precision


def test_every_batch_size_is_compiled_however_many_there_are(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the ninth on (here the second), PyTorch would run them as they are and say so in a log only."""
    monkeypatch.setattr("torch._dynamo.config.recompile_limit", 1)
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        (clips,) = (value for value in inputs if value.shape[1:] == (4, 3, 16, 16))
        compiled.append(len(clips))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    network = TimedNetwork(
        load_checkpoint(str(checkpoints.folder())), "sdpa", Precision.FP32, compiled=True, device="cpu"
    )
    reference = checkpoints.load()
    for count in range(1, 4):
        pixels = normal_pixels(reference, count)
        for _ in range(2):
            logits = network.run(pixels)["logits"]
        np.testing.assert_allclose(logits, reference.run_eager(pixels)["logits"], rtol=0, atol=1e-5)
    assert compiled == list(range(1, 4))

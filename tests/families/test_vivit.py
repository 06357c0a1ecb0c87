"""What the family says of ViViT is what transformers' network has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkpoints import Checkpoints


@pytest.mark.parametrize("fields", [{}, {"num_hidden_layers": 3, "tubelet_size": [1, 4, 8]}], ids=str)
def test_the_anatomy_is_that_of_the_network(checkpoints: Checkpoints, fields: dict[str, Any]) -> None:
    checkpoint = checkpoints.load(**fields)
    anatomy = checkpoint.anatomy
    modules = dict(checkpoint.encoder.named_modules())
    linears = [name for name, m in modules.items() if isinstance(m, torch.nn.Linear) and anatomy.in_block(name)]
    norms = [name for name, m in modules.items() if isinstance(m, torch.nn.LayerNorm) and anatomy.in_block(name)]
    assert (len(linears), len(norms)) == (anatomy.num_linears, anatomy.num_norms)
    assert len(modules["layers"]) == anatomy.num_blocks
    with torch.inference_mode():
        shape = (1, checkpoint.clip.num_frames, 3, checkpoint.clip.height, checkpoint.clip.width)
        assert modules["embeddings"](torch.zeros(shape)).shape[1] == anatomy.tokens
    assert {tap.norm for tap in checkpoint.taps} == {*norms, "layernorm"}

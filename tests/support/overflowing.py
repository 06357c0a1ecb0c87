"""A checkpoint that computes what another does, but through numbers that fp16 does not have."""

from __future__ import annotations

from pathlib import Path

import torch
from checkpoints import Checkpoints
from outliers import add_cancelling_units
from transformers import VivitForVideoClassification

FACTOR, UNITS = 2.0**16, 8


def overflowing(checkpoints: Checkpoints, folder: Path, layer: int, layers: int = 2) -> Path:
    """Write a checkpoint with large units that cancel in the MLP of one layer; ReLU lets a factor through exactly.

    Args:
        checkpoints: makes the checkpoint that it begins with.
        folder: to write.
        layer: which one overflows.
        layers: how many there are.
    """
    checkpoints.copy(folder, num_hidden_layers=layers, hidden_act="relu")
    model = VivitForVideoClassification.from_pretrained(folder).eval()
    config = model.config
    for i, block in enumerate(model.vivit.layers):
        with torch.no_grad():
            add_cancelling_units(block.mlp, torch.arange(UNITS), FACTOR if i == layer else 1.0)
    config.intermediate_size += 2 * UNITS
    model.save_pretrained(folder)
    return folder

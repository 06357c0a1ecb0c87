"""Compare a model in memory with the checkpoint that it was written to, which has no hooks and no code of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vivit_export.errors import CheckpointError
from vivit_export.export.checkpoint.load import load_checkpoint

_FULL, _HALF = 0.01, 0.05
"""Largest difference as a share of the range, for float32 (which may be TF32 on a GPU) and for types of 16 bits."""


def require_same(model: Any, folder: Path) -> str | None:
    """Run both on one clip of random pixels.

    Args:
        model: a model of transformers; as it was, when this returns.
        folder: its checkpoint.

    Returns:
        Why the model could not be run, or None.

    Raises:
        CheckpointError: they compute different results.
    """
    model = getattr(model, "_orig_mod", model)  # torch.compile would take minutes
    checkpoint = load_checkpoint(str(folder))
    clip = checkpoint.clip
    shape = (1, clip.num_frames, 3, clip.height, clip.width)
    pixels = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    weight = next(model.parameters())
    try:
        with _evaluating(model):
            theirs = model(pixels.to(weight.device, weight.dtype))[0].float().cpu()
    except Exception as e:  # whatever a model's own code raises
        return str(e).splitlines()[0] if str(e) else type(e).__name__
    with torch.inference_mode():
        ours = checkpoint.network(pixels)[0]
    if theirs.shape != ours.shape:
        raise _other(f"its output has the shape {list(theirs.shape)}, and that of the saved one {list(ours.shape)}")
    span = float(ours.max() - ours.min()) or float(ours.abs().max()) or 1.0
    off = float((theirs - ours).abs().max()) / span
    if not off <= (_FULL if weight.dtype in (torch.float32, torch.float64) else _HALF):
        raise _other(f"its output differs from that of the saved one by {100 * off:.3g} % of the range")
    return None


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Switch dropout off, and afterwards each module back to what it was."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before.items():
            module.training = training


def _other(difference: str) -> CheckpointError:
    return CheckpointError(
        f"the model in memory is not what save_pretrained saves: {difference}; remove hooks and code of your own, "
        "which are not exported, or save it and export its folder if that is what you want"
    )

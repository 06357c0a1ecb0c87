"""Run the eager network and see what passes its taps; see `vivit_export.bundle.taps`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.checkpoint.low_precision import in_dtype, torch_dtype
from vivit_export.families.family import tapped_outputs
from vivit_export.precision import Precision

Float32 = npt.NDArray[np.float32]


def run_tapped(
    checkpoint: Checkpoint, pixels: Float32, precision: Precision
) -> tuple[list[Float32], dict[str, Float32]]:
    """Run one clip in one pass.

    Args:
        checkpoint: not modified.
        pixels: float32 (1, T, 3, H, W).
        precision: ``fp32``, ``fp16`` or ``bf16``: type of weights and activations.

    Returns:
        The values of the taps in order, float32: embeddings, the residual stream after attention and after the MLP of
        each block, and the final norm, each (sequences, tokens, hidden); with a head, logits (1, num_labels). Then the
        outputs by name, as `Checkpoint.run_eager` has them.
    """
    return checkpoint.where_it_fits(lambda: _run_tapped(checkpoint, pixels, torch_dtype(precision)))


def _run_tapped(
    checkpoint: Checkpoint, pixels: Float32, dtype: torch.dtype
) -> tuple[list[Float32], dict[str, Float32]]:
    modules, base = dict(checkpoint.network.named_modules()), checkpoint.adapter.family.base
    found: list[Float32] = []

    def keep_input(_module: Any, inputs: Any) -> None:
        found.append(inputs[0].float().cpu().numpy())

    def keep_output(_module: Any, _inputs: Any, output: Any) -> None:
        found.append(output.float().cpu().numpy())

    hooks = []
    for tap in checkpoint.taps:
        norm = modules.get(f"{base}.{tap.norm}") or modules[tap.norm]
        hooks.append(
            norm.register_forward_hook(keep_output) if tap.norm_output else norm.register_forward_pre_hook(keep_input)
        )
    try:
        with in_dtype(checkpoint.network, dtype), torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(checkpoint.device).to(dtype)
            outputs = {name: out.float().cpu().numpy() for name, out in checkpoint.outputs(batch).items()}
    finally:
        for hook in hooks:
            hook.remove()
    last = [outputs[name] for name in tapped_outputs(checkpoint.taps) if name in outputs]
    return [*found, *last], outputs

"""Run the eager network and see what passes its taps; see `vivit_export.bundle.taps`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vivit_export.export.checkpoint.load import Checkpoint, in_dtype, torch_dtype
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
        each block, and the final norm, each (1, tokens, hidden); with a head, logits (1, num_labels). Then the outputs
        by name, as `Checkpoint.run_eager` has them.
    """
    encoder: Any = checkpoint.encoder
    lists = (m for m in encoder.modules() if isinstance(m, torch.nn.ModuleList))
    blocks: Any = next(m for m in lists if len(m) == checkpoint.num_layers)
    found: list[Float32] = []

    def keep(output: Any) -> None:
        found.append((output[0] if isinstance(output, tuple) else output).float().numpy())

    def keep_input(_module: Any, inputs: Any) -> None:
        keep(inputs[0])

    def keep_output(_module: Any, _inputs: Any, output: Any) -> None:
        keep(output)

    hooks = [encoder.embeddings.register_forward_hook(keep_output)]
    for block in blocks:
        hooks += [block.layernorm_after.register_forward_pre_hook(keep_input), block.register_forward_hook(keep_output)]
    hooks.append(encoder.layernorm.register_forward_hook(keep_output))
    dtype = torch_dtype(precision)
    try:
        with in_dtype(checkpoint.network, dtype), torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(dtype)
            outputs = {name: out.float().numpy() for name, out in checkpoint.outputs(batch).items()}
    finally:
        for hook in hooks:
            hook.remove()
    return [*found, *(outputs[name] for name in ("logits",) if name in outputs)], outputs

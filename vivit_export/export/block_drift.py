"""Where drift begins: compare the residual stream after each encoder block with the eager network's.

The exact rewrites do not change that stream, so it can be compared. A graph in fp16 or bf16 runs with its
rounding emulated, because CPU engines skip it (`vivit_export.export.graph.emulate`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vivit_export.bundle import Bundle
from vivit_export.bundle.checks import BlockDrift
from vivit_export.errors import BuildError, option
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.graph.emulate import emulated_session
from vivit_export.export.graph.load import load_verified

Float32 = npt.NDArray[np.float32]


def block_drift(bundle: Bundle, checkpoint: Checkpoint, clips: npt.NDArray[Any], pixels: Float32) -> list[BlockDrift]:
    """Compare clip by clip, holding the streams of one clip in memory.

    Args:
        bundle: a verified bundle.
        checkpoint: what it was exported from.
        clips: (N, ...) for the graph's input.
        pixels: float32 (N, T, 3, H, W): the same clips for the eager network.

    Returns:
        One row per block: the worst of the clips.

    Raises:
        BuildError: the graph's blocks cannot be distinguished.
        BundleError: the graph or its weights were altered.
    """
    model = load_verified(bundle)
    streams = _streams(model, checkpoint.num_layers)
    worst = [BlockDrift(f"layers.{i}", 0.0, 0.0) for i in range(checkpoint.num_layers)]
    with emulated_session(model, outputs=streams) as session:
        for clip, pixel in zip(clips, pixels, strict=True):
            ours = session.run(clip[None]).values()
            expected = checkpoint.run_blocks(pixel[None])
            worst = [_worse(*row) for row in zip(worst, ours, expected, strict=True)]
    return worst


def _streams(model: ir.Model, num_layers: int) -> list[str]:
    """Return each block's output: the input of the next block's first LayerNormalization, or of the encoder's last."""
    norms = [node for node in model.graph if node.op_type == "LayerNormalization"]
    if len(norms) != 2 * num_layers + 1:
        raise BuildError(
            f"the graph has {len(norms)} LayerNormalization nodes where {num_layers} blocks and the end of the encoder "
            f"have {2 * num_layers + 1}, so blocks cannot be told apart; leave {option('per_block')} out"
        )
    return [str(norm.inputs[0].name) for norm in norms[2::2] if norm.inputs[0] is not None]


def _worse(known: BlockDrift, ours: Float32, expected: Float32) -> BlockDrift:
    # The last block may output only the class token, which comes first: see `rewrites.class_token`.
    expected = expected[:, : ours.shape[1]]
    difference = ours.astype(np.float64) - expected
    rms = float(np.sqrt(np.mean(difference**2) / np.mean(expected.astype(np.float64) ** 2)))
    return BlockDrift(known.name, max(known.rms, rms), max(known.max_abs, float(np.abs(difference).max())))

"""Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721, section 4.1) of the heads of attention.

Two weights may be scaled against each other, channel by channel, if there are only linear operations between them:

    q_j k_j = (q_j d_j) (k_j / d_j)          P (v_j d_j) (W_o)_j / d_j = (P v_j) (W_o)_j

With r the largest magnitude of a channel's weights, the paper uses d_j = sqrt(r2_j / r1_j), which brings both to
sqrt(r1_j r2_j). It scales two consecutive layers against each other, with a ReLU between them, which requires d > 0.
Here:

- Q and K meet in a product and get the paper's d. There is only a product between them, and only a weighted sum
  between V and the output projection.
- V gets d_j = T / r_j instead, with T the largest over all channels of Q and K. The three weights share one scale
  (see `vivit_export.calibration.linears`), which T determines, so V may use all of it. The output projection has
  scales of its own and absorbs 1 / d_j.
- d_j is rounded to a power of two, for V downward, and kept between 2^-10 and 2^10. Then no weight is rounded in any
  floating-point type, and the graph computes the same bits, apart from overflow and underflow; the paper's computes
  the same function in real arithmetic. In exchange, the magnitudes agree only within a factor of two.
- Rotary positions (arXiv:2104.09864) mix the two halves of a head, channel by channel: there, a channel of Q and K has
  the d of its partner.
- The biases are folded away before (see `attention_biases`), so the paper's absorption of large biases does not apply.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vivit_export.export.graph.rewrites.attention_block import AttentionBlock, attention_blocks
from vivit_export.export.graph.rewrites.declined import Decline, ignore
from vivit_export.export.graph.rewrites.nodes import Float64


def equalize_heads(model: ir.Model, decline: Decline = ignore) -> int:
    """Equalize every matched block without biases on Q, K and V; return how many there were.

    Precondition: before `lower_attention`.
    """
    count = 0
    for block in attention_blocks(model, decline):
        if any(linear.add is not None for linear in (block.query, block.key, block.value)):
            decline(block.attention, "Q, K or V has a bias")
            continue
        _balance_query_and_key(block)
        _level_value(block)
        count += 1
    return count


def _balance_query_and_key(block: AttentionBlock) -> None:
    """Bring the query and the key of each channel to the same magnitude."""
    query, key = block.query.weight, block.key.weight
    over, under = _peaks(key), _peaks(query)
    if block.rotary:
        over, under = (_with_partner(peaks, *block.heads) for peaks in (over, under))
    factor = _power_of_two(np.sqrt(_ratio(over, under)))
    block.query.set_weight(query * factor)
    block.key.set_weight(key / factor)


def _level_value(block: AttentionBlock) -> None:
    """Scale the columns of V up to the largest of Q and K."""
    value = block.value.weight
    target = max(_peaks(block.query.weight).max(), _peaks(block.key.weight).max())
    factor = _power_of_two(_ratio(np.full(value.shape[1], target), _peaks(value)), np.floor)
    block.value.set_weight(value * factor)
    block.output.set_weight(block.output.weight / factor[:, None])


def _peaks(weight: Float64) -> Float64:
    peaks: Float64 = np.abs(weight).max(axis=0)
    return peaks


def _with_partner(peaks: Float64, heads: int, channels: int) -> Float64:
    """Give each channel the larger of its own peak and that of its partner in the other half of the head."""
    pairs = peaks.reshape(heads, 2, channels // 2)
    return np.broadcast_to(pairs.max(axis=1, keepdims=True), pairs.shape).reshape(-1)


def _ratio(a: Float64, b: Float64) -> Float64:
    """Return A / b, and 1 where a channel is zero."""
    return np.divide(a, b, out=np.ones_like(a), where=(a > 0) & (b > 0))


def _power_of_two(factor: Float64, rounding: np.ufunc = np.rint) -> Float64:
    result: Float64 = np.exp2(np.clip(rounding(np.log2(factor)), -_WIDEST, _WIDEST))
    return result


_WIDEST = 10
"""Largest exponent, so that fp16 activations keep room above and below."""

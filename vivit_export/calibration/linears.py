"""Linears that read one tensor form a layer: the unit of quantization, with its arithmetic in NumPy.

One activation scale serves all Linears of a layer (Q, K and V read the same tensor), so they are
quantized, smoothed, measured and kept in fp16 together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vivit_export.precision import Precision

Float32 = npt.NDArray[np.float32]

_SMALLEST_SCALE = 2.0**-24  # the smallest positive fp16


@dataclass(frozen=True)
class LinearGroup:
    """Linears that share their input.

    Attributes:
        name: module path of the Linear, or the common part of the paths of its Linears.
        tensor: name of the input's value in the calibration graph.
        linears: module path of each.
        weights: float32 (in, out) of each.
        smoothing: how to divide the input by channel: ``free`` if the op before absorbs the factors into its
            weights, ``mul`` if a multiplication is needed, ``none`` if neither is exact.
        biased: whether it is one Linear with a bias, which can absorb a correction.
    """

    name: str
    tensor: str
    linears: tuple[str, ...]
    weights: tuple[Float32, ...]
    smoothing: str
    biased: bool = False

    @property
    def joined(self) -> Float32:
        """Return all weights side by side, float32 (in, out)."""
        return np.concatenate(self.weights, axis=1) if len(self.weights) > 1 else self.weights[0]


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight as it is stored.

    Attributes:
        codes: int8 or float8_e4m3fn (in, out).
        scale: float32 (out,) or (), each a value that fp16 represents; ``codes * scale`` is the weight.
    """

    codes: npt.NDArray[np.generic]
    scale: npt.NDArray[np.float32]

    @property
    def values(self) -> Float32:
        """Return the values that the codes stand for, float32 (in, out)."""
        return self.codes.astype(np.float32) * self.scale


def fp16_scale(amax: npt.ArrayLike, precision: Precision) -> npt.NDArray[np.float32]:
    """Return the scale that maps [-amax, amax] to the codes: the next fp16 value not below amax / largest code."""
    wanted = np.maximum(np.asarray(amax, np.float64) / float(precision.dtype.max), _SMALLEST_SCALE)
    near = wanted.astype(np.float16)
    up = np.where(near.astype(np.float64) < wanted, np.nextafter(near, np.float16(np.inf)), near)
    return up.astype(np.float32)


def encode(values: Float32, scale: npt.NDArray[np.float32], precision: Precision) -> npt.NDArray[np.generic]:
    """Return the codes of ``values / scale``: rounded to the nearest, ties to even, clipped.

    INT8 stays within [-127, 127] here, so that a weight and its negative have the same magnitude.
    """
    return _codes(values / scale, precision, -float(precision.dtype.max))


def quantize_input(rows: Float32, amax: float, precision: Precision) -> Float32:
    """Return ``rows`` as the quantized layer sees them: QuantizeLinear, which also has -128, then DequantizeLinear."""
    scale = fp16_scale(amax, precision)
    codes = _codes(rows / scale, precision, float(precision.dtype.min))
    return codes.astype(np.float32) * scale


def _codes(scaled: Float32, precision: Precision, lowest: float) -> npt.NDArray[np.generic]:
    dtype = precision.dtype
    rounded = scaled if dtype.is_floating_point() else np.rint(scaled)
    codes: npt.NDArray[np.generic] = np.clip(rounded, lowest, float(dtype.max)).astype(dtype.numpy())
    return codes


def quantize_weights(
    group: LinearGroup,
    precision: Precision,
    weights: Sequence[Float32] | None = None,
    percent: int = 100,
) -> list[QuantizedWeight]:
    """Quantize a layer's weights, each column by its largest magnitude.

    FP8 layers, and layers with several Linears, get a single scale. For Q, K and V, this lets TensorRT
    merge them and pass their product to the attention kernel without a copy (`equalize` keeps this cheap).
    For FP8, a scale per column gains nothing, because E4M3 is a floating-point type.

    Args:
        group: what to quantize.
        precision: type of the codes.
        weights: weights to use instead of the layer's own, such as smoothed ones.
        percent: percentage of the largest magnitude that the codes span.
    """
    weights = group.weights if weights is None else weights
    peaks = [np.abs(weight).max(axis=0) for weight in weights]
    if precision.dtype.is_floating_point() or len(weights) > 1:
        peaks = [np.asarray(max(float(peak.max()) for peak in peaks))] * len(weights)
    scales = [fp16_scale(peak * (percent / 100), precision) for peak in peaks]
    return [
        QuantizedWeight(encode(weight, scale, precision), scale) for weight, scale in zip(weights, scales, strict=True)
    ]

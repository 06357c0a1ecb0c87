"""Rate a compiled plan where no GPU can time it: a roofline over its kernels.

A kernel takes as long as its arithmetic or its memory traffic, whichever is longer, and a launch. The rates are those
of an H100: matrix products as measured in a first run (those in ``benchmarks/results/gpu.json`` are up to 4 % higher),
memory by its data sheet. The sum puts plans of one model in order; it predicts no time, least of all on another GPU.
It does not know how well a kernel uses the chip, so two plans within a few percent of each other are as good as equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vivit_export.anatomy import Anatomy
from vivit_export.export.engine.layers import Layer, PlanTensor

FLOPS = {"Float": 52e12, "Half": 750e12, "BFloat16": 750e12, "Int8": 1400e12, "FP8": 1400e12}
"""Products per second by type, of 8192 x 8192 matrices (int8 as FP8)."""
BYTES = 3.35e12
"""Bytes per second of GPU memory."""
LAUNCH = 2e-6
"""Seconds that a kernel takes at least; an assumption."""


def plan_seconds(layers: Sequence[Layer], anatomy: Anatomy, batch: int) -> float:
    """Return what a call would take on the modelled GPU.

    Args:
        layers: a plan.
        anatomy: of its network.
        batch: clips per call.
    """
    kernels = [layer for layer in layers if layer.role != "host"]
    sizes = _Sizes(anatomy, batch)
    products = {id(layer): sizes.gemm_flops(layer) for layer in kernels if layer.role == "gemm"}
    attentions = [layer for layer in kernels if layer.role in ("attention", "product")]
    # What the Linears leave of the encoder's operations is attention's: each kernel of it has an equal part.
    rest = max(0.0, anatomy.flops * batch - sum(products.values())) / max(1, len(attentions))
    total = 0.0
    for layer in kernels:
        flops = products.get(id(layer), rest if layer in attentions else 0.0)
        rate = FLOPS.get(layer.dtype, FLOPS["Float"])
        total += LAUNCH + max(flops / rate, sizes.traffic(layer) / BYTES)
    return total


class _Sizes:
    """Sizes of tensors, of which a plan leaves one side open: clips, and what the compiler joined with them.

    Args:
        anatomy: says how many tokens, heads and sequences a clip has.
        batch: clips per call.
    """

    def __init__(self, anatomy: Anatomy, batch: int) -> None:
        self._anatomy, self._batch = anatomy, batch
        attentions = (attention for stack in anatomy.stacks for attention in stack.attentions)
        self._sequences = {attention.tokens: attention.sequences for attention in attentions}

    def gemm_flops(self, layer: Layer) -> float:
        """Return 2 M N K: each number of the input meets N weights, of which there are N K."""
        source = max(layer.factors, key=lambda tensor: self._elements(tensor, layer), default=None)
        if source is None:
            return 0.0
        total = 0.0
        for weights in layer.weights:
            if 1 in weights.dims[-2:]:  # a bias
                continue
            depth = source.dims[-1] if source.dims[-1] in weights.dims else weights.dims[-2]
            total += 2 * self._elements(source, layer) * (self._elements(weights, layer) / max(1, abs(depth)))
        return total

    def traffic(self, layer: Layer) -> float:
        """Return the bytes of all that a kernel reads and writes."""
        tensors = (*layer.inputs, *layer.constants, *layer.outputs)
        return sum(self._elements(tensor, layer) * tensor.bits / 8 for tensor in tensors)

    def _elements(self, tensor: PlanTensor, layer: Layer) -> float:
        return float(math.prod(self._open_side(tensor, layer) if side < 0 else side for side in tensor.dims))

    def _open_side(self, tensor: PlanTensor, layer: Layer) -> int:
        """Rows of a matrix are the tokens of all clips; before a sequence, they are its clips and heads."""
        sequences = next((self._sequences[side] for side in tensor.dims if side in self._sequences), None)
        if sequences is not None:
            heads = self._anatomy.heads if layer.role in ("attention", "product") else 1
            return self._batch * sequences * heads
        return self._batch * (self._anatomy.tokens if len(tensor.dims) < 4 else 1)

"""Which layers quantization hurts most, and the fewest to leave out of it.

The error of a layer's own output, which the calibration knows, ranks all layers for free. What counts is
the logits: for those at the top of the ranking it is measured what happens to them when that layer
alone is quantized, and when it alone is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vivit_export.bundle.manifest import LayerEffect
from vivit_export.calibration.ranges import Ranges

Rms = Callable[[Sequence[str]], float]
"""RMS logit difference to fp32, relative to the logit range, with the layers named kept as they are."""

CONFIRMED = 12
"""Layers measured on the logits: two runs of the model on some clips each."""


def measure(
    ranges: Ranges, shares: dict[str, float], rms: Rms, count: Callable[[int], None], confirmed: int = CONFIRMED
) -> list[LayerEffect]:
    """Rank layers, the most harmful first: by ``without`` where it was measured, the rest by ``error``.

    Args:
        ranges: of the layers.
        shares: of the multiplications, by layer.
        rms: runs the model.
        count: told after each layer.
        confirmed: how many layers to measure on the logits.
    """
    names = sorted(ranges.layers, key=lambda name: -ranges.layers[name].error)
    found = []
    for i, name in enumerate(names):
        alone = without = None
        if i < confirmed:
            alone = rms([other for other in names if other != name])
            without = rms([name])
            count(1)
        found.append(LayerEffect(name, ranges.layers[name].error, alone, without, shares[name]))
    top, rest = found[:confirmed], found[confirmed:]
    return [*sorted(top, key=lambda one: one.without or 0.0), *rest]


def fewest_kept(
    order: Sequence[str], passes: Callable[[Sequence[str]], bool], count: Callable[[int], None]
) -> tuple[str, ...] | None:
    """Return the shortest beginning of ``order`` with which ``passes`` holds, or None where none does.

    It is tried in ever longer steps, then halved, so that few of many layers cost few trials; one that
    passes is taken to pass with more layers too.

    Args:
        order: layers, the most harmful first.
        passes: runs the model with layers kept, and holds it against the gate.
        count: told after each trial.
    """

    def tried(length: int) -> bool:
        held = passes(order[:length])
        count(1)
        return held

    low, high = -1, 0  # the gate holds nowhere up to `low`
    while not tried(high):
        if high == len(order):
            return None
        low, high = high, min(len(order), max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        if tried(middle):
            high = middle
        else:
            low = middle
    return tuple(order[:high])

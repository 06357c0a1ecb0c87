"""Find the layers that quantization hurts most, and the fewest layers to keep in fp16.

The error of a layer's own output, which the calibration knows, ranks all layers for free. But the logits are
what counts. For the layers at the top of the ranking, we therefore measure the logits with only that layer
quantized, and with all layers but that one quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from vivit_export.bundle.manifest import LayerEffect
from vivit_export.calibration.ranges import Ranges

T = TypeVar("T")
Rms = Callable[[Sequence[str]], float]
"""RMS logit difference from fp32, relative to the logit range, with the named layers unquantized."""

CONFIRMED = 12
"""Layers measured on the logits: two runs of the model on some clips each."""


def measure(
    ranges: Ranges, shares: dict[str, float], rms: Rms, count: Callable[[int], None], confirmed: int = CONFIRMED
) -> list[LayerEffect]:
    """Rank layers, the most harmful first: by ``without`` if it was measured, the rest by ``error``.

    Args:
        ranges: ranges of the layers.
        shares: share of the multiplications, by layer.
        rms: runs the model.
        count: called after each layer.
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
    order: Sequence[T], passes: Callable[[Sequence[T]], bool], count: Callable[[int], None]
) -> tuple[T, ...] | None:
    """Return the shortest beginning of ``order`` for which ``passes`` holds, or None.

    The steps first grow and are then halved, so that keeping a few of many layers takes few trials. A set
    that passes is assumed to pass with more layers too.

    Args:
        order: layers, the most harmful first.
        passes: runs the model with these layers kept, and checks it against the gate.
        count: called after each trial.
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


def without_the_needless(
    kept: Sequence[T],
    passes: Callable[[Sequence[T]], bool],
    count: Callable[[int], None],
    most: int,
    *,
    last_is_needed: bool = False,
) -> tuple[T, ...]:
    """Leave out one after the other, the last first, as long as ``passes`` holds; then none can be left out alone.

    A set that passes is assumed to pass with more layers too.

    Args:
        kept: what passes together.
        passes: as for `fewest_kept`.
        count: called after each trial.
        most: try at most this many.
        last_is_needed: do not try the last, as `fewest_kept` has.
    """
    left = list(kept)
    tried = list(range(len(left) - last_is_needed))[::-1][:most]
    for index in tried:
        fewer = left[:index] + left[index + 1 :]
        held = passes(fewer)
        count(1)
        left = fewer if held else left
    return tuple(left)

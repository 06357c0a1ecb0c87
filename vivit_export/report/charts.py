"""The geometry of the drawings on a page, in percent of their width, so that they fit a phone and a wide screen.

The templates draw them as SVG. A figure of a bundle may be any number, so every length is held between 0 and 100.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vivit_export.bundle.bench import BenchRecord
from vivit_export.bundle.checks import BlockDrift
from vivit_export.bundle.manifest import LayerEffect
from vivit_export.bundle.taps import TapReport
from vivit_export.errors import counted

_IN_BLOCK = re.compile(r"(?P<before>.*?)(?P<block>\d+)\.(?P<rest>.+)", re.DOTALL)
_MOST_COLUMNS = 200
_MOST_EFFECTS = 12
_TYPE_KINDS = {"float32": "full", "float16": "half", "bfloat16": "half", "int8": "code", "float8e4m3fn": "code"}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with what is written beside it.

    Attributes:
        label: what it is of.
        value: its value in words.
        width: its length in percent.
        mark: where a second value lies, such as a percentile, in percent; None: there is none.
        kind: what to color it by: ``plain``, ``good`` or ``bad``.
    """

    label: str
    value: str
    width: float
    mark: float | None = None
    kind: str = "plain"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar.

    Attributes:
        label: what it is of.
        value: its value in words.
        start: where it begins in percent.
        width: its length in percent.
    """

    label: str
    value: str
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle in a row of the block map.

    Attributes:
        start: where it begins in percent.
        width: its length in percent.
        kind: ``full``, ``half`` or ``code``: what class of type its weights have.
        text: the block and the type.
    """

    start: float
    width: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class BlockMap:
    """Which type stores the weights of each layer of each block.

    Attributes:
        blocks: how many columns.
        rows: a name, what is in its cells in words, and one cell per block that has such a layer.
        types: names of the types by class, for the legend.
        others: layers outside the blocks, with their type.
    """

    blocks: int
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]
    types: Mapping[str, str]
    others: tuple[tuple[str, str], ...]


def percent(value: float, of: float) -> float:
    """Return a part of a whole in percent, between 0 and 100; 0 for what is not a number."""
    try:
        share = 100 * value / of
    except (ZeroDivisionError, OverflowError):
        return 0.0
    return round(min(100.0, max(0.0, share)), 2) if math.isfinite(share) else 0.0


def block_map(layers: Mapping[str, str]) -> BlockMap | None:
    """Return the map of the types of the weights by module path; None if no path has the number of a block."""
    found: dict[str, dict[int, str]] = {}
    others: list[tuple[str, str]] = []
    for path, kind in layers.items():
        place = _IN_BLOCK.fullmatch(path)
        if place is None or len(place["block"]) > 4:
            others.append((path, kind))
        else:
            found.setdefault(place["rest"], {})[int(place["block"])] = kind
    blocks = 1 + max((block for row in found.values() for block in row), default=-1)
    if not 0 < blocks <= _MOST_COLUMNS:
        return None
    ordered = sorted(found.items(), key=lambda item: _place(item[0]))
    rows = [(name, _words(row), tuple(_cells(row, blocks))) for name, row in ordered]
    types: dict[str, list[str]] = {}
    for kind in sorted({kind for row in found.values() for kind in row.values()}):
        types.setdefault(_TYPE_KINDS.get(kind, "full"), []).append(kind)
    return BlockMap(blocks, tuple(rows), {kind: ", ".join(names) for kind, names in types.items()}, tuple(others))


def _cells(row: Mapping[int, str], blocks: int) -> Iterable[Cell]:
    width = 100 / blocks
    for block, kind in sorted(row.items()):
        text = f"block {block}: {kind}"
        yield Cell(round(block * width, 3), round(width, 3), _TYPE_KINDS.get(kind, "full"), text)


def _words(row: Mapping[int, str]) -> str:
    """Say which blocks have which type: the most frequent by its number, the others one by one."""
    by_type: dict[str, list[int]] = {}
    for block, kind in sorted(row.items()):
        by_type.setdefault(kind, []).append(block)
    usual, *others = sorted(by_type.items(), key=lambda item: -len(item[1]))
    parts = [f"{usual[0]} in {counted(len(usual[1]), 'blocks')}"]
    parts += [f"{kind} in {', '.join(map(str, blocks))}" for kind, blocks in others]
    return "; ".join(parts)


def _place(name: str) -> tuple[int, str]:
    """Sort the layers of a block as data passes them."""
    order = ("q_proj", "query", "k_proj", "key", "v_proj", "value", "o_proj", "output.dense", "fc1", "fc2")
    places = [i for i, part in enumerate(order) if part in name]
    return (max(places, default=len(order)), name)


def block_bars(blocks: Sequence[BlockDrift]) -> tuple[Bar, ...]:
    """Return a bar for the relative RMS drift after each block."""
    most = max((block.rms for block in blocks if block.rms is not None), default=0.0)
    return tuple(_error_bar(block.name, block.rms, most, "plain") for block in blocks)


def tap_bars(report: TapReport) -> tuple[Bar, ...]:
    """Return a bar for the error of the graph at each tap, with a mark at that of the eager model in the same type."""
    errors = [error for tap in report.taps for error in (tap.total, tap.precision) if error is not None]
    most = 1.02 * max((error.error for error in errors if error.error is not None), default=0.0)
    bars = []
    for tap in report.taps:
        bar = _error_bar(tap.name, tap.total.error, most, "bad" if tap.cause else "plain")
        eager = tap.precision.error if tap.precision else None
        bars.append(bar if eager is None else replace(bar, mark=percent(eager, most)))
    return tuple(bars)


def _error_bar(name: str, error: float | None, most: float, kind: str) -> Bar:
    if error is None:
        return Bar(name, "not finite", 100.0, kind="bad")
    return Bar(name, f"{error:.2g}", percent(error, most), kind=kind)


def latency_bars(bench: BenchRecord) -> tuple[Bar, ...]:
    """Return a bar for the median latency of each contender and batch, with a mark at its 99th percentile."""
    timed = [(name, batch, f) for name, c in bench.contenders.items() for batch, f in c.batches.items()]
    most = 1.02 * max((max(f.p50_ms, f.p99_ms) for _, _, f in timed), default=0.0)  # with room for the last mark
    return tuple(
        Bar(
            f"{name}, batch {batch}",
            f"{f.p50_ms:.1f} ms (p99 {f.p99_ms:.1f})",
            percent(f.p50_ms, most),
            percent(f.p99_ms, most),
        )
        for name, batch, f in timed
    )


def step_bars(bench: BenchRecord) -> tuple[tuple[str, str, tuple[Segment, ...]], ...]:
    """Return for each contender its name, the time from file to result, and the steps that it consists of."""
    known = {name: c.steps_seconds for name, c in bench.contenders.items() if c.steps_seconds}
    most = max((sum(steps.values()) for steps in known.values()), default=0.0)
    rows = []
    for name, steps in known.items():
        start, segments = 0.0, []
        for step, seconds in steps.items():
            width = min(percent(seconds, most), 100 - start)
            segments.append(Segment(step, f"{1e3 * seconds:.1f} ms", round(start, 2), round(width, 2)))
            start = min(100.0, start + width)
        rows.append((name, f"{1e3 * sum(steps.values()):.1f} ms", tuple(segments)))
    return tuple(rows)


def effect_bars(effects: Sequence[LayerEffect]) -> tuple[Bar, ...]:
    """Return a bar for the change of the logits with only this layer quantized, for those that have most of it."""
    known = [(effect, effect.alone) for effect in effects if effect.alone is not None]
    most = max((alone for _, alone in known), default=0.0)
    shown = sorted(known, key=lambda item: -item[1])[:_MOST_EFFECTS]
    return tuple(Bar(effect.layer, f"{100 * alone:.3f} %", percent(alone, most)) for effect, alone in shown)

"""Where drift begins: compare the graph and eager PyTorch at every tap; see `vivit_export.bundle.taps`.

Three models run each clip once: eager float32, eager in the type of the graph, and the graph with its taps as more
outputs. The exact rewrites do not change the taps, so they can be compared. A graph in fp16 or bf16 runs with its
rounding emulated, because CPU engines skip it (`vivit_export.export.graph.emulate`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import Bundle
from vivit_export.bundle.taps import Suspect, Tap, TapError, TapReport
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.checkpoint.tapped_network import run_tapped
from vivit_export.export.graph.emulate import emulated_session
from vivit_export.export.graph.load import load_verified
from vivit_export.export.graph.taps import Step, find_steps, linears_of
from vivit_export.precision import Precision
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.session.backend import join_outputs

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TappedRuns:
    """What the three models say about the clips.

    Attributes:
        report: the errors at the taps.
        reference: outputs of eager float32, (N, ...) by name.
        low: those of eager in the type of the graph; None: that is float32.
        graph: those of the graph.
    """

    report: TapReport
    reference: Outputs
    low: Outputs | None
    graph: Outputs


def block_drift(
    bundle: Bundle, checkpoint: Checkpoint, clips: Iterable[npt.NDArray[Any]], pixels: Iterable[Float32]
) -> TappedRuns:
    """Compare clip by clip, holding the taps of one clip in memory.

    Args:
        bundle: a verified bundle.
        checkpoint: what it was exported from.
        clips: each for the graph's input, (...).
        pixels: of the same clips for the eager network, each float32 (T, 3, H, W).

    Raises:
        BuildError: the graph's blocks cannot be distinguished.
        BundleError: the graph or its weights were altered.
    """
    model = load_verified(bundle)
    steps = find_steps(model, checkpoint.taps)
    base, rounds = bundle.precision.base, bundle.precision.rounds
    wanted = [tensor.name for tensor in bundle.contract.io.outputs]
    taps = [str(step.value.name) for step in steps]
    worst: list[Tap] = []
    rows: list[tuple[Outputs, Outputs | None, Outputs]] = []

    def one(clip: npt.NDArray[Any], pixel: Float32) -> list[Tap]:  # a function, so that its taps end with it
        exact, reference = run_tapped(checkpoint, pixel[None], Precision.FP32)
        rounded, low = run_tapped(checkpoint, pixel[None], base) if rounds else (exact, None)
        results = session.run(clip[None])
        rows.append((reference, low, {name: results[name] for name in wanted}))
        ours = list(results.values())[: len(taps)]
        return [_compared(*row) for row in zip(steps, ours, rounded, exact, strict=False)]

    with emulated_session(model, outputs=[*taps, *(name for name in wanted if name not in taps)]) as session:
        for clip, pixel in zip(clips, pixels, strict=True):
            found = one(clip, pixel)
            worst = [_worse(*pair) for pair in zip(worst, found, strict=True)] if worst else found
        ran = f"{session.name}, {bundle.precision.emulated}" if rounds else session.name
    named = _budgeted(worst, bundle.precision)
    report = TapReport(ran, base, named, find_suspect(named, steps, bundle.precision))
    low_rows = [low for _, low, _ in rows if low is not None]
    return TappedRuns(
        report,
        _joined([reference for reference, _, _ in rows], wanted),
        _joined(low_rows, wanted) if low_rows else None,
        _joined([graph for _, _, graph in rows], wanted),
    )


def _joined(rows: list[Outputs], names: list[str]) -> Outputs:
    return join_outputs([{name: row[name] for name in names} for row in rows])


def _compared(step: Step, ours: Float32, rounded: Float32, exact: Float32) -> Tap:
    same = rounded is exact
    # Behind the last attention, the graph may have only the class token, which comes first.
    if exact.ndim == 3:
        rounded, exact = rounded[:, : ours.shape[1]], exact[:, : ours.shape[1]]
    return Tap(step.name, None if same else _error(rounded, exact), _error(ours, rounded), _error(ours, exact))


@np.errstate(invalid="ignore", divide="ignore", over="ignore")  # what is not finite is told, not warned about
def _error(ours: Float32, reference: Float32) -> TapError:
    x, y = ours.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    difference, sizes = np.linalg.norm(x - y), (np.linalg.norm(x), np.linalg.norm(y))
    if not difference:
        return TapError(0.0, 1.0, 0.0)
    cosine = x @ y / (sizes[0] * sizes[1])
    return TapError(*(_finite(value) for value in (difference / sizes[1], cosine, np.abs(x - y).max())))


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _worse(known: Tap, found: Tap) -> Tap:
    precision = None
    if known.precision is not None and found.precision is not None:
        precision = _worse_error(known.precision, found.precision)
    return Tap(known.name, precision, _worse_error(known.graph, found.graph), _worse_error(known.total, found.total))


def _worse_error(known: TapError, found: TapError) -> TapError:
    return TapError(
        _worst(max, known.error, found.error),
        _worst(min, known.cosine, found.cosine),
        _worst(max, known.max_abs, found.max_abs),
    )


def _worst(choose: Callable[[float, float], float], known: float | None, found: float | None) -> float | None:
    return None if known is None or found is None else choose(known, found)


def _budgeted(taps: list[Tap], precision: Precision) -> tuple[Tap, ...]:
    """Set the budgets: the embeddings have no codes in any precision."""
    base, own = precision.base.tap_error, precision.tap_error
    return tuple(
        replace(
            tap,
            precision=None if tap.precision is None else replace(tap.precision, budget=base),
            graph=replace(tap.graph, budget=own if i else base),
        )
        for i, tap in enumerate(taps)
    )


def find_suspect(taps: Sequence[Tap], steps: Sequence[Step], precision: Precision) -> Suspect | None:
    """Return the first tap beyond its budget, with what to keep in a wider type; None: there is none.

    Args:
        taps: with their budgets.
        steps: what computes each.
        precision: of the graph.
    """
    for i, (tap, step) in enumerate(zip(taps, steps, strict=True)):
        if tap.cause is None:
            continue
        after = taps[i - 1].name if i else None
        linears, nodes = linears_of(step), tuple(str(node.name) for node in step.nodes)
        found = Suspect(tap.name, tap.cause, after, nodes, linears)
        coded = any(node.op_type == "DequantizeLinear" for node in step.nodes)
        if not precision.rounds:
            return found
        name = "keep_fp16" if tap.cause == "graph" and coded else "keep_fp32"
        return replace(found, option=name, pattern=_beginning_with(step.paths))
    return None


def _beginning_with(paths: Sequence[str]) -> str:
    """Return a regular expression for what begins with one of the paths."""
    found = "|".join(map(re.escape, paths))
    return f"^{found}" if len(paths) == 1 else f"^({found})"

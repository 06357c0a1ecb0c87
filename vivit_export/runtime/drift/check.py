"""Compare results with reference results on the same clips. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from vivit_export.bundle import GOLDEN, Bundle
from vivit_export.bundle.checks import Gate, Run, measured_metrics
from vivit_export.contract import Task
from vivit_export.errors import BundleError, option
from vivit_export.runtime.drift.metrics import compare, parse_gate
from vivit_export.runtime.session.session import Session

Outputs = Mapping[str, npt.NDArray[np.float32]]


def run_full_batches(
    execute: Callable[[npt.NDArray[Any]], Outputs],
    engine: str,
    clips: npt.NDArray[Any],
    reference: Outputs,
    gate: Gate,
    task: Task,
    size: int,
) -> Run:
    """Run all clips ``size`` at a time and compare.

    Args:
        execute: runs a batch (B, ...).
        engine: name for the report.
        clips: (N, ...). If there are fewer than ``size``, they are repeated to fill the batch.
        reference: arrays (N, ...) by output name.
        gate: sets the margin below which a flip counts as near.
        task: what the logits mean.
        size: clips per call.
    """
    rows = np.arange(max(size, len(clips))) % len(clips)
    parts = [execute(clips[rows[i : i + size]]) for i in range(0, len(rows), size)]
    result = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    expected = {name: array[rows] for name, array in reference.items()}
    return Run(engine, size, True, compare(expected, result, gate.tie_margin, task))


def check_session(
    session: Session, clips: npt.NDArray[Any], reference: Outputs, gate: Gate, batches: Iterable[int] = ()
) -> list[Run]:
    """Run clips in a session at batch 1, at its largest batch, and at the given batches that it accepts.

    Args:
        session: an opened bundle.
        clips: as `Session.run` takes them.
        reference: results for these clips, by output name.
        gate: sets the margin below which a flip counts as near.
        batches: more sizes to try, such as the one an engine is tuned for.
    """
    sizes, task = checked_batches(session, batches), session.contract.task
    return [run_full_batches(session.run, session.details, clips, reference, gate, task, size) for size in sizes]


def checked_batches(session: Session, batches: Iterable[int] = ()) -> list[int]:
    """Return the batches that `check_session` runs, in rising order; the last is the session's largest."""
    low, high = session.batches
    return sorted({max(1, low), high, *(size for size in batches if low <= size <= high)})


def tuned_batches(bundle: Bundle) -> tuple[int, ...]:
    """Return the batches that the bundle's engines are tuned for."""
    return tuple(sorted({engine.profile.opt for engine in bundle.engines.values()}))


def gate_of(bundle: Bundle, text: str | None = None) -> Gate:
    """Return the limits that a bundle was exported with, or else its precision's, replaced with those in ``text``.

    Raises:
        UsageError: see `parse_gate`.
    """
    checks, contract = bundle.manifest.checks, bundle.contract
    measured = measured_metrics([tensor.name for tensor in contract.io.outputs], contract.task, len(contract.labels))
    return parse_gate(text, bundle.precision, checks.gate.limits if checks else None, measured)


def golden_clips(bundle: Bundle) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.float32]]]:
    """Read the clips that the bundle was checked on when it was exported.

    Args:
        bundle: a verified bundle.

    Returns:
        uint8 frames as `Session.run` takes them, and the results of the eager fp32 network, by output name.

    Raises:
        BundleError: it has none.
    """
    if bundle.golden is None:
        raise BundleError(
            f"{bundle.path} has no golden clips, as it was exported with {option('check', False)}; check it against "
            f"the eager model: {option('against', 'eager')}"
        )
    arrays = load(bundle.read(GOLDEN))
    names = [tensor.name for tensor in bundle.contract.io.outputs]
    missing = [name for name in ("frames", *names) if name not in arrays]
    if missing:
        raise BundleError(f"{bundle.golden} lacks {missing[0]!r}; export the bundle again")
    return arrays["frames"], {name: arrays[name] for name in names}

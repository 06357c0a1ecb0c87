"""Compare results with reference results on the same clips. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from vivit_export.bundle import GOLDEN, Bundle
from vivit_export.bundle.checks import OF_LABELS, Gate, Run, measured_metrics
from vivit_export.bundle.tensors import TensorHeader, read_headers
from vivit_export.contract import Task
from vivit_export.errors import BundleError, option
from vivit_export.files import open_regular
from vivit_export.limits import MOST_GOLDEN_CLIPS
from vivit_export.records import shown
from vivit_export.runtime.drift.clip_view import ClipTally
from vivit_export.runtime.drift.metrics import compare, parse_gate
from vivit_export.runtime.drift.over_views import averaging, by_clip
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.session.backend import join_outputs
from vivit_export.runtime.session.session import Session


def run_full_batches(
    execute: Callable[[npt.NDArray[Any]], Outputs],
    engine: str,
    clips: npt.NDArray[Any],
    reference: Outputs,
    gate: Gate,
    task: Task,
    size: int,
    tally: ClipTally | None = None,
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
        tally: is given the results, to tell clip by clip.
    """
    rows = np.arange(max(size, len(clips))) % len(clips)
    result = join_outputs([execute(clips[rows[i : i + size]]) for i in range(0, len(rows), size)])
    expected = {name: array[rows] for name, array in reference.items()}
    drift = compare(expected, result, gate.tie_margin, task)
    if tally is not None:
        drift = replace(drift, accuracy_drop=tally.accuracy_drop(rows, result))
    run = Run(engine, size, True, drift)
    if tally is not None:
        tally.add(run, rows, result)
    return run


def check_session(
    session: Session,
    clips: npt.NDArray[Any],
    reference: Outputs,
    gate: Gate,
    batches: Iterable[int] = (),
    tally: ClipTally | None = None,
    views: int = 1,
) -> list[Run]:
    """Run clips in a session at batch 1, at its largest batch, and at the given batches that it accepts.

    Args:
        session: an opened bundle.
        clips: as `Session.run` takes them.
        reference: results for these clips, by output name.
        gate: sets the margin below which a flip counts as near.
        batches: more sizes to try, such as the one an engine is tuned for.
        tally: see `run_full_batches`.
        views: how many rows of ``clips`` are views of one clip, over which its results are averaged.
    """
    sizes, task, clips = checked_batches(session, batches), session.contract.task, by_clip(clips, views)

    def run(size: int) -> Run:
        execute = averaging(session.run, views, size)
        return run_full_batches(execute, session.details, clips, reference, gate, task, size, tally)

    return [run(size) for size in sizes]


def checked_batches(session: Session, batches: Iterable[int] = ()) -> list[int]:
    """Return the batches that `check_session` runs, in rising order; the last is the session's largest."""
    low, high = session.batches
    return sorted({max(1, low), high, *(size for size in batches if low <= size <= high)})


def tuned_batches(bundle: Bundle) -> tuple[int, ...]:
    """Return the batches that the bundle's engines are tuned for."""
    return tuple(sorted({engine.profile.opt for engine in bundle.engines.values()}))


def gate_of(bundle: Bundle, text: str | None = None, *, labelled: bool = False) -> Gate:
    """Return the limits that a bundle was exported with, or else its precision's, replaced with those in ``text``.

    Args:
        bundle: the bundle.
        text: see `parse_gate`.
        labelled: whether the labels of the clips are known.

    Raises:
        UsageError: see `parse_gate`.
    """
    checks, contract = bundle.manifest.checks, bundle.contract
    measured = measured_metrics([tensor.name for tensor in contract.io.outputs], contract.task, len(contract.labels))
    measured |= OF_LABELS if labelled else set()
    return parse_gate(text, bundle.precision, checks.gate.limits if checks else None, measured)


def golden_clips(bundle: Bundle) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.float32]]]:
    """Read the clips that the bundle was checked on when it was exported.

    Args:
        bundle: a verified bundle.

    Returns:
        uint8 frames as `Session.run` takes them, and the results of the eager fp32 network, by output name.

    Raises:
        BundleError: it has none, or they are not clips of this model with finite results.
    """
    with open_regular(_golden_file(bundle)) as file:  # before so much is read
        _require_golden(file, bundle)
    content = bundle.read(GOLDEN)
    _require_golden(BytesIO(content), bundle)
    arrays = load(content)
    return arrays["frames"], _finite(
        {tensor.name: arrays[tensor.name] for tensor in bundle.contract.io.outputs}, bundle
    )


def first_golden_clip(bundle: Bundle) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.float32]]]:
    """Read the first of these clips alone, and the results for all of them. Memory: the same, however many there are.

    Args:
        bundle: a verified bundle.

    Returns:
        See `golden_clips`; the frames have one row.

    Raises:
        BundleError: see there.
    """
    with open_regular(_golden_file(bundle)) as file:
        told = _require_golden(file, bundle)
        start = file.tell()
        file.seek(0)
        header = file.read(start)
    frames = told["frames"]
    first, after = frames.data_offsets
    names = [tensor.name for tensor in bundle.contract.io.outputs]
    wanted = [(first, first + (after - first) // frames.shape[0]), *(told[name].data_offsets for name in names)]
    seen, clip, *rows = bundle.read_parts(GOLDEN, [(0, start), *((start + a, start + b) for a, b in wanted)])
    if seen != header:
        raise BundleError(f"{bundle.golden} changed while it was read; copy the bundle again")
    outputs = {name: np.frombuffer(row, "<f4").reshape(told[name].shape) for name, row in zip(names, rows, strict=True)}
    return np.frombuffer(clip, np.uint8).reshape(1, *frames.shape[1:]), _finite(outputs, bundle)


def _golden_file(bundle: Bundle) -> Path:
    if bundle.golden is None:
        raise BundleError(
            f"{bundle.path} has no golden clips, as it was exported with {option('check', False)}; check it against "
            f"the eager model: {option('against', 'eager')}"
        )
    return bundle.golden


def _finite(results: dict[str, npt.NDArray[np.float32]], bundle: Bundle) -> dict[str, npt.NDArray[np.float32]]:
    for name, array in results.items():
        if not np.isfinite(array).all():
            raise BundleError(f"{bundle.golden} has {name} that are not finite numbers; export the bundle again")
    return results


def _require_golden(file: BinaryIO, bundle: Bundle) -> dict[str, TensorHeader]:
    """Refuse golden clips of another type or shape than the contract's, from the header of their file alone."""
    clip, io, path = bundle.contract.clip, bundle.contract.io, bundle.path / GOLDEN
    height, width = io.frame_size or (clip.height, clip.width)
    needed: dict[str, tuple[str, tuple[int | str, ...]]] = {"frames": ("U8", (clip.num_frames, height, width, 3))}
    needed |= {tensor.name: ("F32", tensor.shape[1:]) for tensor in io.outputs}
    found = read_headers(file, path)
    for name, (dtype, shape) in needed.items():
        if name not in found:
            raise BundleError(f"{path} lacks {name!r}; export the bundle again")
        told = found[name]
        rows = told.shape[0] if told.shape else 0
        if (told.dtype, told.shape[1:]) != (dtype, shape) or not 1 <= rows <= MOST_GOLDEN_CLIPS:
            raise BundleError(
                f"{path} has {name} {told.dtype} {shown(list(told.shape))}, but this model has {dtype} of 1 to "
                f"{MOST_GOLDEN_CLIPS} times {list(shape)}; export the bundle again"
            )
    if len({found[name].shape[0] for name in needed}) > 1:
        raise BundleError(f"{path} has more clips than results, or fewer; export the bundle again")
    return found

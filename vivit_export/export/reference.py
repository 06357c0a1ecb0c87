"""The clips of a check with the results that others are held to: stored in a bundle, or of the eager model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import Bundle
from vivit_export.bundle.checks import BlockDrift, CheckedClips, Gate, Parity, Run
from vivit_export.bundle.golden import golden_rows
from vivit_export.bundle.taps import TapReport
from vivit_export.errors import CheckpointError, UsageError, counted, option
from vivit_export.export.clips import clip_names, load_check_clips, num_check_clips
from vivit_export.export.view_clips import load_view_clips
from vivit_export.packages import naming_the_extra
from vivit_export.precision import Precision
from vivit_export.progress import Progress
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.drift.check import (
    golden_clips,
)
from vivit_export.runtime.drift.clip_view import ClipTally
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.over_views import averaged
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.drift.truth import read_truth
from vivit_export.runtime.predict import adapt_contract

if TYPE_CHECKING:
    from vivit_export.export.checkpoint.load import Checkpoint


@dataclass(frozen=True)
class Reference:
    """Clips with the reference results for a bundle; ``of_graph``: results of its graph, if that has run."""

    name: str
    clips: CheckedClips
    frames: npt.NDArray[np.uint8]
    outputs: Outputs
    tally: ClipTally
    runs: tuple[Run, ...] = ()
    parity: tuple[Parity, ...] = ()
    taps: TapReport | None = None
    of_graph: Outputs | None = None

    @property
    def views(self) -> int:
        """How many rows of ``frames`` are views of one clip."""
        temporal, spatial = self.clips.views
        return temporal * spatial


def golden_reference(bundle: Bundle, num_clips: int | None, gate: Gate, labels: Path | None) -> Reference:
    """Return the golden clips with the results that the bundle stores.

    Args:
        bundle: a verified bundle.
        num_clips: how many at most; None: all.
        gate: sets the margin below which a flip counts as near.
        labels: see `check`.

    Raises:
        BundleError: it has none; see `golden_clips`.
        InputError: see `read_truth`.
    """
    frames, stored = golden_clips(bundle)
    outputs = {name: array[:num_clips] for name, array in stored.items()}
    checks = bundle.manifest.checks
    stored_clips = checks.clips if checks else CheckedClips("", ())
    clips = _of_golden(stored_clips, golden_rows(len(stored_clips.names), len(frames))[:num_clips])
    return Reference(
        name=f"{checks.reference} (golden)" if checks else "golden",
        clips=clips,
        frames=frames[:num_clips],
        outputs=outputs,
        tally=_tally(bundle, outputs, gate, labels, clips.names, stored_clips.names),
    )


def _of_golden(clips: CheckedClips, rows: Sequence[int]) -> CheckedClips:
    """Return some clips of a check; those that a manifest does not name are numbered."""
    names = tuple(clips.names[row] if row < len(clips.names) else f"clip {row}" for row in rows)
    return CheckedClips(clips.source, names, tuple(clips.videos[row] for row in rows) if clips.videos else ())


def _tally(
    bundle: Bundle,
    outputs: Outputs,
    gate: Gate,
    labels: Path | None,
    names: Sequence[str],
    all_names: Sequence[str],
) -> ClipTally:
    contract = bundle.contract
    others = [name for name in all_names if name not in set(names)]
    truth = None if labels is None else read_truth(labels, contract, names, others)
    return ClipTally(outputs, gate.tie_margin, contract.task, contract.labels, truth)


@dataclass(frozen=True)
class EagerRun:
    """What the eager model runs on, as the arguments of `vivit_export.export.recheck.check`.

    Attributes:
        place: a video or a folder of videos; None: the demo's clips.
        checkpoint: see there.
        num_clips: see there.
        views: see there.
        per_block: see there.
        device: of the engine, where it runs if PyTorch can use it.
    """

    place: Path | None
    checkpoint: str | None
    num_clips: int | None
    views: tuple[int, int] | None
    per_block: bool
    device: str | None


def eager_reference(
    bundle: Bundle,
    asked: EagerRun,
    gate: Gate,
    labels: Path | None,
    reading: Reading,
    readers: int | None,
    progress: Progress,
) -> Reference:
    """Run the eager model on clips, as `check` says of these arguments.

    Raises:
        UsageError, CheckpointError: see `load_exported_checkpoint`.
        ClipError: see `load_check_clips`.
        InputError: see `read_truth`.
    """
    with progress.stage("load the checkpoint"):
        loaded = load_exported_checkpoint(bundle, asked.checkpoint)
        move_beside(loaded, asked.device)
        device = str(loaded.device)
    from vivit_export.export.check import processor_parity, run_eager

    with progress.stage("read the clips"):
        limit = num_check_clips(asked.num_clips, asked.place, loaded.flops_per_clip)
        place, views = asked.place, asked.views
        if views is None or place is None:
            clips = load_check_clips(bundle.contract, place, limit, progress.note, reading, readers)
        else:
            contract = adapt_contract(bundle.contract, views=views)
            clips = load_view_clips(contract, place, limit, progress.note, reading, readers)
    base = bundle.precision.base
    taps = of_graph = None
    if asked.per_block:
        from vivit_export.export.block_drift import block_drift

        with progress.stage(f"compare each block on {counted(len(clips.names), 'clips')}"):
            tapped = block_drift(bundle, loaded, clips.for_input(bundle.contract.io.mode), clips.each)
        outputs, low, taps, of_graph = tapped.reference, tapped.low, tapped.report, tapped.graph
    else:
        count = clips.checked.views[0] * clips.checked.views[1]
        outputs = averaged(run_eager(loaded, bundle.contract, clips, Precision.FP32, progress), count)
        low = averaged(run_eager(loaded, bundle.contract, clips, base, progress), count) if base.rounds else None
    if str(loaded.device) != device:
        progress.note(f"the eager model runs on the CPU, because the memory of {device} does not hold it")
    tally = _tally(bundle, outputs, gate, labels, clips.names, () if labels is None else clip_names(place))
    runs: tuple[Run, ...] = ()
    if low is not None:
        rows = np.arange(len(clips.names))
        drift = compare(outputs, low, gate.tie_margin, bundle.contract.task)
        runs = (Run(f"eager {base}", 1, False, replace(drift, accuracy_drop=tally.accuracy_drop(rows, low))),)
        tally.add(runs[0], rows, low)
    with progress.stage("compare with the image processor"):
        parity = processor_parity(bundle.contract, place, clips.checked)
    name = f"eager fp32, {loaded.framework}"
    return Reference(name, clips.checked, clips.frames, outputs, tally, runs, (parity,), taps, of_graph)


def blocks_of(taps: TapReport) -> tuple[BlockDrift, ...]:
    """Return what the taps say about the residual stream after each block."""
    ends = [tap.total for tap in taps.taps if tap.name.endswith(" MLP")]
    return tuple(BlockDrift(f"layers.{i}", end.error, end.max_abs) for i, end in enumerate(ends))


def move_beside(checkpoint: Checkpoint, device: str | None) -> None:
    """Move the eager model to the device of an engine, if PyTorch can use that too."""
    from vivit_export.export.checkpoint.device import device_beside

    checkpoint.move(device_beside(device))


def load_exported_checkpoint(bundle: Bundle, checkpoint: str | None) -> Checkpoint:
    """Load the checkpoint that a bundle was exported from.

    Args:
        bundle: a verified bundle.
        checkpoint: a folder, hub id or ``demo``; None: the one that the bundle names, unless that was a folder.

    Raises:
        UsageError: the bundle was exported from a folder, which must be named.
        CheckpointError: the weights differ.
    """
    from vivit_export.export.checkpoint.files import hash_weights

    model = bundle.manifest.model
    named = checkpoint or (model.id if model.id == "demo" or model.revision else None)
    if named is None:
        raise UsageError(
            f"the bundle was exported from a local folder named {model.id}; say where it "
            f"is: {option('checkpoint', 'FOLDER')}"
        )
    revision = model.revision if checkpoint is None else None
    pickled = any(not name.endswith(".safetensors") for name in model.weights_sha256)
    found = hash_weights(named, revision, pickled=pickled)
    if sorted(found.values()) != sorted(model.weights_sha256.values()):
        raise CheckpointError(
            f"{named} is not the checkpoint that {bundle.path} was exported from: the hashes of its weight files differ"
        )
    with naming_the_extra():
        from vivit_export.export.checkpoint.load import load_checkpoint

    # A pickle with that hash was allowed when it was exported.
    return load_checkpoint(named, revision=revision, allow_pickle=pickled)

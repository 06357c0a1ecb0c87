"""Check a finished bundle again: on the clips it was exported with, or on any clips against the eager model.

The first needs no torch. The check runs the session that serves, on the engine that it chooses. On a CPU, for
all but fp32, it also runs a graph that emulates the rounding of its types, because CPU engines do not round
(`vivit_export.export.graph.emulate`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.checks import BlockDrift, CheckedClips, DriftReport, Gate, Parity, Run
from vivit_export.bundle.signatures.trust import Files
from vivit_export.bundle.signatures.verify import require_signature as require_signer
from vivit_export.bundle.taps import TapReport
from vivit_export.choices import Against, CpuPrecision, Decode
from vivit_export.errors import CheckpointError, UsageError, counted, option
from vivit_export.export.checkpoint.files import hash_weights
from vivit_export.export.clips import clip_names, load_check_clips, num_check_clips
from vivit_export.files import as_path
from vivit_export.leftovers import remove_scratch
from vivit_export.packages import naming_the_extra
from vivit_export.precision import Precision
from vivit_export.progress import Progress, Silent
from vivit_export.runtime import Preprocessor, find_clips
from vivit_export.runtime.clips.video.reading import Reading, told_by
from vivit_export.runtime.drift.check import (
    check_session,
    checked_batches,
    gate_of,
    golden_clips,
    run_full_batches,
    tuned_batches,
)
from vivit_export.runtime.drift.clip_view import ClipTally
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.parity import graph_parity
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.drift.truth import read_truth, require_one_label
from vivit_export.runtime.select import CPU_ENGINES, open_session
from vivit_export.runtime.session.session import Session

if TYPE_CHECKING:
    from vivit_export.export.checkpoint.load import Checkpoint


@dataclass(frozen=True)
class _Reference:
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


def check(
    bundle: Bundle | str | Path,
    clips: str | Path | None = None,
    *,
    engine: str | None = None,
    device: str | None = None,
    cpu_precision: CpuPrecision | None = None,
    against: Against | None = None,
    checkpoint: str | None = None,
    num_clips: int | None = None,
    gate: str | None = None,
    labels: str | Path | None = None,
    per_block: bool = False,
    decode: Decode = "auto",
    readers: int | None = None,
    require_signature: Files | None = None,
    identity: str | None = None,
    progress: Progress | None = None,
) -> DriftReport:
    """Measure the drift of a bundle on the engine that would serve it; see `DriftReport.passed`.

    Args:
        bundle: a bundle or its folder.
        clips: video or folder of videos, on which to compare with the eager model.
        engine: see `open_session`, as for ``device`` and ``cpu_precision``.
        device: see `open_session`.
        cpu_precision: see `open_session`.
        against: ``golden``: results of the eager fp32 model stored in the bundle, which needs no torch;
            ``eager``: that model itself. Default: golden, or eager with ``clips``, ``checkpoint`` or ``per_block``.
        checkpoint: what the bundle was exported from: a folder, a hub id or ``demo``. Default: the
            hub id that the bundle names.
        num_clips: use at most this many clips.
        gate: limits such as ``top1=0.99``, which override those that the bundle was exported with.
        labels: file with the known label of each clip, which adds how often both models are right; see `read_truth`.
        per_block: also measure the drift at each tap, from the embeddings to the logits; see `DriftReport.taps`.
        decode: ``auto``: decode what the clips need of each video; ``full``: all of it, to find any damage.
        readers: how many videos are read at once; None: one per core.
        require_signature: see `open_session`, as for ``identity``.
        identity: see `open_session`.
        progress: receives each stage.

    Raises:
        UsageError: options that conflict.
        BundleError: the bundle is damaged, or has no golden clips.
        SignatureError: it is not signed by whom it must be signed by.
        CheckpointError: the checkpoint is not the one that the bundle was exported from.
        ClipError: there is no clip, or one cannot be used.
        InputError: the labels cannot be read, or do not fit the clips or the model.
        EnvironmentFault: the engine, or torch, is not available.
    """
    progress = progress if progress is not None else Silent()
    chosen = _choose(against, clips, checkpoint, per_block)
    if num_clips is not None and num_clips < 1:
        raise UsageError(f"{option('num_clips', num_clips)} must be at least 1")
    _check_reading(chosen, decode, readers)
    if clips is not None:
        find_clips(clips)  # a mistake is told before the eager model is loaded
    reading = Reading(decode, note=told_by(progress))
    remove_scratch(progress.note)
    with progress.stage("verify the bundle"):
        source = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        require_signer(source, require_signature, identity)
    known = None if labels is None else as_path(labels, "labels")
    if known is not None:
        require_one_label(source.contract)
        if chosen == "eager":  # a mistake is told before the eager model is loaded
            read_truth(known, source.contract, (), clip_names(None if clips is None else Path(clips)))
    limits = gate_of(source, gate, labelled=known is not None)
    with open_session(source, engine, device, cpu_precision, self_test=False) as session:
        progress.note(f"runs on {session.details}")
        if chosen == "golden":
            reference = _golden(source, num_clips, limits, known)
        else:
            reference = _eager(
                source, clips, checkpoint, num_clips, limits, known, per_block, reading, readers, progress
            )
        runs = [*reference.runs, *_session_runs(source, session, reference, limits, progress)]
    with progress.stage("compare preprocessed pixels"):
        in_graph = _graph_parity(source, reference.frames)
    parity = (*reference.parity, *([in_graph] if in_graph else []))
    view, taps = reference.tally.view(reference.clips, runs), reference.taps
    return DriftReport(
        reference.name,
        reference.clips,
        limits,
        tuple(runs),
        parity,
        _blocks(taps) if taps else (),
        taps,
        view,
        reference.tally.accuracy(runs),
    )


def assert_no_drift(
    bundle: Bundle | str | Path,
    clips: str | Path | None = None,
    *,
    against: Against | None = None,
    checkpoint: str | None = None,
    num_clips: int | None = None,
    gate: str | None = None,
    labels: str | Path | None = None,
    engine: str | None = None,
    device: str | None = None,
    cpu_precision: CpuPrecision | None = None,
) -> DriftReport:
    """Check a bundle in a test, in one line that fails if the model drifts.

    Args:
        bundle: as for `check`, like all other arguments.
        clips: see there.
        against: see there.
        checkpoint: see there.
        num_clips: see there.
        gate: see there.
        labels: see there.
        engine: see there.
        device: see there.
        cpu_precision: see there.

    Returns:
        The report.

    Raises:
        DriftError: a run is beyond the gate, or preprocessing differs; and everything that `check` raises.
    """
    report = check(
        bundle,
        clips,
        against=against,
        checkpoint=checkpoint,
        num_clips=num_clips,
        gate=gate,
        labels=labels,
        engine=engine,
        device=device,
        cpu_precision=cpu_precision,
    )
    report.require()
    return report


def _choose(against: Against | None, clips: str | Path | None, checkpoint: str | None, per_block: bool) -> Against:
    needs_eager = {"clips": clips, "checkpoint": checkpoint, "per_block": per_block}
    given = [option(name) for name, value in needs_eager.items() if value]
    if against == "golden" and given:
        raise UsageError(f"{given[0]} needs the eager model; use {option('against', 'eager')}, or leave {given[0]} out")
    if against not in (None, "golden", "eager"):
        raise UsageError(f"{option('against', repr(against))} is not one of golden, eager")
    return against or ("eager" if given else "golden")


def _check_reading(against: Against, decode: Decode, readers: int | None) -> None:
    if decode not in get_args(Decode):
        raise UsageError(f"{option('decode', repr(decode))} is not one of {', '.join(get_args(Decode))}")
    if readers is not None and readers < 1:
        raise UsageError(f"{option('readers', readers)} must be at least 1")
    given = [option("decode", decode)] if decode != "auto" else []
    given += [option("readers", readers)] if readers is not None else []
    if given and against == "golden":
        raise UsageError(
            f"{given[0]} is for videos, and the golden clips are frames; name videos with {option('clips', 'DIR')}"
        )


def _golden(bundle: Bundle, num_clips: int | None, gate: Gate, labels: Path | None) -> _Reference:
    frames, stored = golden_clips(bundle)
    outputs = {name: array[:num_clips] for name, array in stored.items()}
    checks = bundle.manifest.checks
    stored_clips = checks.clips if checks else CheckedClips("", ())
    clips = _of_golden(stored_clips, min(len(frames), num_clips or len(frames)))
    return _Reference(
        name=f"{checks.reference} (golden)" if checks else "golden",
        clips=clips,
        frames=frames[:num_clips],
        outputs=outputs,
        tally=_tally(bundle, outputs, gate, labels, clips.names, stored_clips.names),
    )


def _of_golden(clips: CheckedClips, count: int) -> CheckedClips:
    """Return the first clips; those that a manifest does not name are numbered."""
    names = (*clips.names[:count], *(f"clip {i}" for i in range(len(clips.names), count)))
    return CheckedClips(clips.source, names, clips.videos[:count] if len(clips.videos) >= count else ())


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


def _eager(
    bundle: Bundle,
    folder: str | Path | None,
    checkpoint: str | None,
    num_clips: int | None,
    gate: Gate,
    labels: Path | None,
    per_block: bool,
    reading: Reading,
    readers: int | None,
    progress: Progress,
) -> _Reference:
    with progress.stage("load the checkpoint"):
        loaded = load_exported_checkpoint(bundle, checkpoint)
    from vivit_export.export.check import processor_parity, run_eager

    with progress.stage("read the clips"):
        limit = num_check_clips(num_clips, folder, loaded.flops_per_clip)
        place = None if folder is None else Path(folder)
        clips = load_check_clips(bundle.contract, place, limit, progress.note, reading, readers)
    base = bundle.precision.base
    taps = of_graph = None
    if per_block:
        from vivit_export.export.block_drift import block_drift

        with progress.stage(f"compare each block on {counted(len(clips.names), 'clips')}"):
            tapped = block_drift(bundle, loaded, clips.for_input(bundle.contract.io.mode), clips.pixels)
        outputs, low, taps, of_graph = tapped.reference, tapped.low, tapped.report, tapped.graph
    else:
        outputs = run_eager(loaded, bundle.contract, clips, Precision.FP32, progress)
        low = run_eager(loaded, bundle.contract, clips, base, progress) if base.rounds else None
    tally = _tally(bundle, outputs, gate, labels, clips.names, () if labels is None else clip_names(place))
    runs: tuple[Run, ...] = ()
    if low is not None:
        rows = np.arange(len(clips.names))
        drift = compare(outputs, low, gate.tie_margin, bundle.contract.task)
        runs = (Run(f"eager {base}", 1, False, replace(drift, accuracy_drop=tally.accuracy_drop(rows, low))),)
        tally.add(runs[0], rows, low)
    with progress.stage("compare with VivitImageProcessor"):
        parity = processor_parity(bundle.contract, None if folder is None else Path(folder), limit)
    name = f"eager fp32, {loaded.framework}"
    return _Reference(name, clips.checked, clips.frames, outputs, tally, runs, (parity,), taps, of_graph)


def _blocks(taps: TapReport) -> tuple[BlockDrift, ...]:
    """Return what the taps say about the residual stream after each block."""
    ends = [tap.total for tap in taps.taps if tap.name.endswith(" MLP")]
    return tuple(BlockDrift(f"layers.{i}", end.error, end.max_abs) for i, end in enumerate(ends))


def load_exported_checkpoint(bundle: Bundle, checkpoint: str | None) -> Checkpoint:
    """Load the checkpoint that a bundle was exported from.

    Args:
        bundle: a verified bundle.
        checkpoint: a folder, hub id or ``demo``; None: the one that the bundle names, unless that was a folder.

    Raises:
        UsageError: the bundle was exported from a folder, which must be named.
        CheckpointError: the weights differ.
    """
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


def _session_runs(bundle: Bundle, session: Session, reference: _Reference, gate: Gate, progress: Progress) -> list[Run]:
    sizes = checked_batches(session, tuned_batches(bundle))
    progress.note(
        f"batches checked: {', '.join(map(str, sizes))}; {sizes[-1]} is the most that {session.engine} runs at once, "
        "larger ones are split"
    )
    with progress.stage(f"run {counted(len(reference.frames), 'clips')} on {session.engine}"):
        tuned = tuned_batches(bundle)
        runs = check_session(session, reference.frames, reference.outputs, gate, tuned, reference.tally)
    if session.engine in CPU_ENGINES and bundle.precision.rounds:
        runs.append(_emulated_run(bundle, reference, gate, progress))
    return runs


def _emulated_run(bundle: Bundle, reference: _Reference, gate: Gate, progress: Progress) -> Run:
    name = f"{bundle.precision} rounding emulated"
    if reference.taps is not None and reference.of_graph is not None:
        rows = np.arange(len(reference.clips.names))
        drift = compare(reference.outputs, reference.of_graph, gate.tie_margin, bundle.contract.task)
        drop = reference.tally.accuracy_drop(rows, reference.of_graph)
        run = Run(reference.taps.graph, 1, True, replace(drift, accuracy_drop=drop))
        reference.tally.add(run, rows, reference.of_graph)
        return run
    if importlib.util.find_spec("onnx_ir") is None:
        return Run(name, 1, True, None, "not run: the package onnx-ir is not installed here")
    from vivit_export.export.graph.emulate import emulated_session
    from vivit_export.export.graph.load import load_verified

    model = load_verified(bundle)
    with progress.stage(f"run them with {name}"), emulated_session(model) as emulated:
        clips: npt.NDArray[Any] = reference.frames
        if bundle.contract.io.mode == "pixels":
            clips = Preprocessor(bundle.contract.clip, bundle.contract.preprocess).to_pixels(reference.frames)
        task = bundle.contract.task
        named = f"{emulated.name}, {name}"
        return run_full_batches(emulated.run, named, clips, reference.outputs, gate, task, 1, reference.tally)


def _graph_parity(bundle: Bundle, frames: npt.NDArray[np.uint8]) -> Parity | None:
    crops = frames
    if bundle.contract.io.mode == "frames":
        preprocessor = Preprocessor(bundle.contract.clip, bundle.contract.preprocess)
        crops = np.stack([preprocessor.crops(clip) for clip in frames])
    return graph_parity(bundle.read, bundle.contract, bundle.manifest.precision, frames, crops)

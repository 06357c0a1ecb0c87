"""Check a finished bundle again: on the clips it was exported with, or on any clips against the eager model.

The first needs no torch. The check runs the session that serves, on the engine that it chooses, and the eager model
on the same device if PyTorch can use it. On a CPU, for all but fp32, it also runs a graph that emulates the rounding
of its types, because CPU engines do not round (`vivit_export.export.graph.emulate`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from vivit_export.arguments import pair_or_none, whole_or_none
from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.baseline import compare_checks, require_same_clips
from vivit_export.bundle.checks import DriftReport, Gate, Parity, Run
from vivit_export.bundle.manifest import Content
from vivit_export.bundle.signatures.trust import Files
from vivit_export.bundle.signatures.verify import require_signature as require_signer
from vivit_export.choices import Against, CpuPrecision, Decode
from vivit_export.errors import UsageError, counted, option
from vivit_export.export.amend import amend, require_same
from vivit_export.export.checkpoint.preview import name_of
from vivit_export.export.clips import clip_names
from vivit_export.export.reference import EagerRun, Reference, blocks_of, eager_reference, golden_reference
from vivit_export.export.undisturbed import undisturbed
from vivit_export.files import as_path
from vivit_export.leftovers import remove_scratch
from vivit_export.progress import Progress, default_progress
from vivit_export.report.baseline import read_baseline
from vivit_export.runtime import Preprocessor, find_clips
from vivit_export.runtime.clips.video.reading import Reading, told_by
from vivit_export.runtime.drift.check import (
    check_session,
    checked_batches,
    gate_of,
    run_full_batches,
    tuned_batches,
)
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.over_views import averaging, by_clip
from vivit_export.runtime.drift.parity import bundle_parity
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.drift.truth import read_truth, require_one_label
from vivit_export.runtime.predict import adapt_contract
from vivit_export.runtime.select import CPU_ENGINES, open_session
from vivit_export.runtime.session.session import Session


@undisturbed
def check(
    bundle: Bundle | str | Path,
    clips: str | Path | None = None,
    *,
    engine: str | None = None,
    device: str | None = None,
    cpu_precision: CpuPrecision | None = None,
    against: Against | None = None,
    checkpoint: str | Path | None = None,
    num_clips: int | None = None,
    gate: str | None = None,
    labels: str | Path | None = None,
    views: tuple[int, int] | None = None,
    baseline: str | Path | None = None,
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
        device: see `open_session`; the eager model runs there too, or on the CPU if PyTorch cannot use that GPU.
        cpu_precision: see `open_session`.
        against: ``golden``: results of the eager fp32 model stored in the bundle, which needs no torch;
            ``eager``: that model itself. Default: golden, or eager with ``clips``, ``checkpoint`` or ``per_block``.
        checkpoint: what the bundle was exported from: a folder, a hub id or ``demo``. Default: the
            hub id that the bundle names.
        num_clips: use at most this many clips.
        gate: limits such as ``top1=0.99``, which override those that the bundle was exported with.
        labels: file with the known label of each clip, which adds how often both models are right; see `read_truth`.
        views: average the results over this number of temporal and spatial views of each video in ``clips``.
        baseline: report of an earlier check, which this one must not be worse than; see `vivit_export.bundle.baseline`.
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
        InputError: the labels or the baseline cannot be read, or do not fit the clips or the model.
        EnvironmentFault: the engine, or torch, is not available.
    """
    progress = progress if progress is not None else default_progress()
    checkpoint = None if checkpoint is None else name_of(checkpoint, "checkpoint")
    chosen = _choose(against, clips, checkpoint, per_block)
    num_clips, readers = whole_or_none("num_clips", num_clips, 1), whole_or_none("readers", readers, 1)
    views = pair_or_none("views", views)
    _check_reading(chosen, decode, readers)
    if clips is not None:
        find_clips(clips)  # a mistake is told before the eager model is loaded
    reading = Reading(decode, note=told_by(progress))
    remove_scratch(progress.note)
    with progress.stage("verify the bundle"):
        source = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        require_signer(source, require_signature, identity)
    _check_views(views, source, clips, per_block)
    known = None if labels is None else as_path(labels, "labels")
    if known is not None:
        _require_labels(known, source, chosen, clips)
    stored = None if baseline is None else read_baseline(as_path(baseline, "baseline"), source)
    limits = gate_of(source, gate, labelled=known is not None)
    with open_session(source, engine, device, cpu_precision, self_test=False) as session:
        progress.note(f"runs on {session.details}")
        if chosen == "golden":
            reference = golden_reference(source, num_clips, limits, known)
        else:
            place = None if clips is None else Path(clips)
            asked = EagerRun(place, checkpoint, num_clips, views, per_block, device)
            reference = eager_reference(source, asked, limits, known, reading, readers, progress)
        if stored is not None:
            require_same_clips(reference.clips, stored, str(baseline))
        runs = [*reference.runs, *_session_runs(source, session, reference, limits, progress)]
    with progress.stage("compare preprocessed pixels"):
        in_graph = bundle_parity(source, reference.frames)
    report = _report(reference, limits, runs, in_graph)
    if stored is None:
        return report
    return replace(report, baseline=compare_checks(report, stored, Path(str(baseline)).name))


def _report(reference: Reference, gate: Gate, runs: Sequence[Run], in_graph: Parity | None) -> DriftReport:
    taps, tally = reference.taps, reference.tally
    return DriftReport(
        reference.name,
        reference.clips,
        gate,
        tuple(runs),
        (*reference.parity, *([in_graph] if in_graph else [])),
        blocks_of(taps) if taps else (),
        taps,
        tally.view(reference.clips, runs),
        tally.accuracy(runs),
    )


def save_check(source: Bundle, report: DriftReport, progress: Progress) -> None:
    """Add a check to the bundle that was checked, and to its report; the check at export stays.

    A signature does not hold for the changed bundle, so it is removed, and a note says so.

    Raises:
        OutputError: the bundle was changed while it was checked, or cannot be written.
    """

    def add(work: Path, content: Content) -> Content:
        require_same(source, work, content, "checked")
        return replace(content, recheck=report)

    amend(source.path, add, progress)


def assert_no_drift(
    bundle: Bundle | str | Path,
    clips: str | Path | None = None,
    *,
    against: Against | None = None,
    checkpoint: str | Path | None = None,
    num_clips: int | None = None,
    gate: str | None = None,
    labels: str | Path | None = None,
    baseline: str | Path | None = None,
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
        baseline: see there.
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
        baseline=baseline,
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


def _require_labels(labels: Path, bundle: Bundle, against: Against, clips: str | Path | None) -> None:
    """Tell a mistake in the labels before the eager model is loaded."""
    require_one_label(bundle.contract)
    if against == "eager":
        read_truth(labels, bundle.contract, (), clip_names(None if clips is None else Path(clips)))


def _check_views(views: tuple[int, int] | None, bundle: Bundle, clips: str | Path | None, per_block: bool) -> None:
    given = option("views", views and "x".join(map(str, views)))
    if views is not None and clips is None:
        raise UsageError(f"{given} is for videos, and the golden clips are frames; name videos with {option('clips')}")
    if views is not None and per_block:
        raise UsageError(f"{given} and {option('per_block')} exclude each other: blocks are compared on single clips")
    adapt_contract(bundle.contract, views=views)


def _check_reading(against: Against, decode: Decode, readers: int | None) -> None:
    if decode not in get_args(Decode):
        raise UsageError(f"{option('decode', repr(decode))} is not one of {', '.join(get_args(Decode))}")
    given = [option("decode", decode)] if decode != "auto" else []
    given += [option("readers", readers)] if readers is not None else []
    if given and against == "golden":
        raise UsageError(
            f"{given[0]} is for videos, and the golden clips are frames; name videos with {option('clips', 'DIR')}"
        )


def _session_runs(bundle: Bundle, session: Session, reference: Reference, gate: Gate, progress: Progress) -> list[Run]:
    sizes = checked_batches(session, tuned_batches(bundle))
    progress.note(
        f"batches checked: {', '.join(map(str, sizes))}; {sizes[-1]} is the most that {session.engine} runs at once, "
        "larger ones are split"
    )
    with progress.stage(f"run {counted(len(reference.frames), 'clips')} on {session.engine}"):
        tuned = tuned_batches(bundle)
        runs = check_session(
            session, reference.frames, reference.outputs, gate, tuned, reference.tally, reference.views
        )
    if session.engine in CPU_ENGINES and bundle.precision.rounds:
        runs.append(_emulated_run(bundle, reference, gate, progress))
    return runs


def _emulated_run(bundle: Bundle, reference: Reference, gate: Gate, progress: Progress) -> Run:
    name = bundle.precision.emulated
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
        pixels = Preprocessor(bundle.contract.clip, bundle.contract.preprocess).to_pixels

        def emulate(frames: npt.NDArray[np.uint8]) -> Outputs:
            return emulated.run(pixels(frames) if bundle.contract.io.mode == "pixels" else frames)

        execute, views = averaging(emulate, reference.views, 1), by_clip(reference.frames, reference.views)
        task, named = bundle.contract.task, f"{emulated.name}, {name}"
        return run_full_batches(execute, named, views, reference.outputs, gate, task, 1, reference.tally)

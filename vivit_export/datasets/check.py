"""Check a bundle on any number of videos on Ray, against the eager model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vivit_export.bundle import MANIFEST, Bundle
from vivit_export.bundle.baseline import compare_checks
from vivit_export.bundle.checks import DriftReport, Gate, Run
from vivit_export.choices import CpuPrecision, Decode
from vivit_export.contract import Contract
from vivit_export.datasets.cluster import choose_address, require_share
from vivit_export.datasets.comparing import EMULATED, ENGINE, ComparingEngine, runs_of
from vivit_export.datasets.drift import MOST_LISTED, Measured, measure_drift
from vivit_export.datasets.inputs import Inputs, find_inputs
from vivit_export.datasets.runs import Done, Summary, run_dataset
from vivit_export.datasets.tables import as_text, check_schema, read_reason, read_videos
from vivit_export.datasets.work import EagerReference, Job
from vivit_export.errors import ClipError, UsageError, counted, option
from vivit_export.files import as_path, sha256_of
from vivit_export.progress import Progress
from vivit_export.report.baseline import read_baseline
from vivit_export.runtime.clips.views import ViewCropper
from vivit_export.runtime.drift.check import gate_of
from vivit_export.runtime.drift.truth import Truth, read_truth, require_one_label
from vivit_export.runtime.predict import adapt_contract

_SAMPLED = 64  # videos, of which the first usable ones are preprocessed by transformers too


def check_dataset(
    bundle: Bundle,
    place: Path,
    output: str | Path,
    *,
    checkpoint: str | None = None,
    num_clips: int | None = None,
    gate: str | None = None,
    labels: Path | None = None,
    views: tuple[int, int] | None = None,
    baseline: Path | None = None,
    engine: str | None = None,
    device: str | None = None,
    cpu_precision: CpuPrecision | None = None,
    decode: Decode = "auto",
    readers: int | None = None,
    signed_by: Sequence[Path] = (),
    identity: str | None = None,
    address: str = "",
    gpu_share: float = 1.0,
    progress: Progress,
) -> tuple[DriftReport, Summary]:
    """Measure the drift of a bundle on videos; what an interrupted run has done is not done again.

    Args:
        bundle: a verified bundle, in a folder that all machines see.
        place: see `find_inputs`; all machines see the videos by these names.
        output: folder of results, which this process writes.
        checkpoint: see `load_exported_checkpoint`; all machines see it.
        num_clips: use at most this many videos.
        gate: see `vivit_export.export.recheck.check`, as for ``labels``, ``views`` and ``baseline``.
        labels: see there.
        views: see there.
        baseline: see there.
        engine: see `open_session`, as ``device`` and ``cpu_precision``.
        device: see there.
        cpu_precision: see there.
        decode: how much of each video is decoded.
        readers: tasks that read at once; None: one per CPU.
        signed_by: see `open_session`, as ``identity``.
        identity: see there.
        address: see `choose_address`.
        gpu_share: share of a GPU that an engine takes, above 0 to 1.
        progress: receives each stage.

    Returns:
        The report, and what was done; clips that could not be used are not in the report.

    Raises:
        UsageError: an option is out of range, or does not fit the model or the inputs.
        ClipError: there is nothing to run, or no clip could be used.
        InputError: the labels or the baseline cannot be read, or do not fit the clips or the model.
        CheckpointError: the checkpoint is not the one that the bundle was exported from.
        OutputError: the folder holds something else, or the disk is full.
        EnvironmentFault: Ray, the engine or torch is not available.
        KeyboardInterrupt: interrupted; whole partitions are kept.
    """
    require_share(gpu_share)
    where, path = choose_address(address), as_path(output, "output")
    contract = adapt_contract(bundle.contract, views=views or (1, 1))
    ViewCropper(contract)  # views that are impossible are no fault of a clip
    limits = gate_of(bundle, gate, labelled=labels is not None)
    with progress.stage("find the inputs"):
        everything = find_inputs([place], progress.note)
    inputs, name = _first(everything, num_clips), _naming(place)
    stored = None if baseline is None else read_baseline(baseline, bundle)
    if baseline is not None:
        _require_few(inputs, baseline)
    if labels is not None:
        _require_labels(labels, contract, inputs, everything, name)
    on = (engine, device, cpu_precision)
    job = Job(
        os.getcwd(), str(bundle.path.absolute()), sha256_of(bundle.path / MANIFEST), contract, None, *on,
        self_test=False, decode=decode, signed_by=tuple(p.absolute() for p in signed_by), identity=identity,
        reference=EagerReference(_absolute(checkpoint), next(iter(inputs.partitions(_SAMPLED)))),
    )  # fmt: skip
    done = run_dataset(
        ComparingEngine,
        job,
        inputs,
        path,
        schema=lambda found: check_schema(contract, runs_of(found)),
        verb="check",
        address=where,
        gpu_share=gpu_share,
        readers=readers,
        progress=progress,
    )
    measured = _measured(done, contract, limits, place)
    if not measured.parity:
        progress.note("preprocessing was not compared: none of the first videos could be used")
    if not done.summary.rows:
        raise ClipError(
            f"none of {counted(done.summary.faults, 'clips')} could be used: {read_reason(done.faults[0])}; "
            f"{path / 'faults'} names them all"
        )
    with progress.stage(f"measure the drift of {counted(done.summary.rows, 'clips')}"):
        truth = None if labels is None else _truth(labels, contract, done, everything, name)
        report = measure_drift(done.rows, measured, truth, name)
    if stored is not None and baseline is not None:
        report = replace(report, baseline=compare_checks(report, stored, baseline.name))
    return report, done.summary


def _first(inputs: Inputs, count: int | None) -> Inputs:
    """Return the first videos.

    Raises:
        UsageError: the number is not above 0, or nobody has counted the clips.
    """
    if count is None:
        return inputs
    given = option("num_clips", count)
    if count < 1:
        raise UsageError(f"{given} must be at least 1")
    if inputs.shards:
        raise UsageError(f"{given} counts videos, and nobody has counted those in shards; name fewer shards instead")
    return Inputs(inputs.videos[:count], ())


def _naming(place: Path) -> Callable[[str], str]:
    """Return what tells the name of a video in a report: its path in the folder, as of a check in one process."""
    root = f"{place if place.is_dir() else place.parent}{os.sep}"
    return lambda video: video.removeprefix(root)


def _absolute(checkpoint: str | None) -> str | None:
    """Return a checkpoint so that it means the same in another folder; an id on the hub stays one."""
    return os.path.abspath(checkpoint) if checkpoint is not None and os.path.isdir(checkpoint) else checkpoint


def _require_few(inputs: Inputs, baseline: Path) -> None:
    if len(inputs.videos) > MOST_LISTED:
        raise UsageError(
            f"{option('baseline', baseline)} is compared clip by clip, of at most {MOST_LISTED} clips, and there are "
            f"{len(inputs.videos)}; check on fewer with {option('num_clips')}, or leave it out"
        )


def _require_labels(
    labels: Path, contract: Contract, inputs: Inputs, everything: Inputs, name: Callable[[str], str]
) -> None:
    """Tell a mistake in the labels before anything runs, as far as the clips are known."""
    require_one_label(contract)
    if not inputs.shards:
        names = [name(as_text(video)) for video in everything.videos]
        read_truth(labels, contract, names[: len(inputs.videos)], names[len(inputs.videos) :])


def _truth(labels: Path, contract: Contract, done: Done, everything: Inputs, name: Callable[[str], str]) -> Truth:
    used = [name(video) for table in done.rows for video, _ in read_videos(table)]
    unusable = [video for table in done.faults for video, _ in read_videos(table)]
    known = set(used)
    others = [each for each in map(name, [*unusable, *map(as_text, everything.videos)]) if each not in known]
    return read_truth(labels, contract, used, others)


def _measured(done: Done, contract: Contract, gate: Gate, place: Path) -> Measured:
    told = done.probe
    runs = {ENGINE: Run(told.details, told.batch, True, None)}
    if told.emulated:
        runs[EMULATED] = Run(told.emulated, 1, True, None)
    return Measured(contract, gate, runs, told.reference, place.absolute().name, contract.clip.views, told.parity)

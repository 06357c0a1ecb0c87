"""``vivit calibrate``: find the ranges of a model once, inspect them, and use them in any number of exports."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivit_export.arguments import path_or_none, paths
from vivit_export.calibration.collect import Observing, observe_here
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.calibration.ranges import Ranges
from vivit_export.choices import CalibrationMethod, Decode
from vivit_export.contract import Sampling, Short
from vivit_export.errors import UsageError, option
from vivit_export.export.calibrate import calibration_contract, calibration_graph, find_clips_of, obtain_ranges
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.checkpoint.preview import name_of, preview_checkpoint
from vivit_export.export.graph.build import Rewritten, rewrite_graph
from vivit_export.export.in_memory import Saveable, as_checkpoint
from vivit_export.export.options import OUTPUTS, ExportOptions
from vivit_export.export.trials import Trials, measure_sensitivity
from vivit_export.export.undisturbed import undisturbed
from vivit_export.files import check_file, json_text, writing_file
from vivit_export.leftovers import remove_scratch
from vivit_export.precision import Precision, PrecisionName, find_precision
from vivit_export.progress import Progress, default_progress

_TRIAL_FLOPS = 8e12
"""Work of one trial: eight clips of ViViT-B/16x2, about ten seconds on two cores."""
_MOST_CLIPS = 64


@undisturbed
def calibrate(
    model: str | Path | Saveable,
    output: str | Path | None = None,
    *,
    processor: Saveable | None = None,
    data: str | Path | Sequence[str | Path] = (),
    precision: Precision | PrecisionName = "int8",
    method: CalibrationMethod = "mse",
    smooth: str = "auto",
    num_clips: int | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    decode: Decode = "auto",
    readers: int | None = None,
    fp8_attention: bool = False,
    sampling: Sampling | None = None,
    stride: int | None = None,
    short: Short | None = None,
    views: tuple[int, int] | None = None,
    skip_rewrites: tuple[str, ...] = (),
    sensitivity: bool = False,
    revision: str | None = None,
    allow_pickle: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Ranges:
    """Find the INT8 or FP8 ranges of a checkpoint on real clips.

    Args:
        model: hub id, checkpoint folder, ``demo``, or a model of transformers in memory.
        output: file to write, for `CalibrationOptions.ranges` of later exports; None: only return the ranges.
        processor: the image or video processor of a model in memory.
        data: videos: folders, files, ``.txt`` lists, or crops in ``.safetensors``; needed unless the model is ``demo``.
        precision: ``int8`` or ``fp8``.
        method: how ranges are found: ``mse``, ``minmax``, ``entropy`` or ``percentile``.
        smooth: ``auto``, ``none``, or SmoothQuant's alpha from 0 to 1.
        num_clips: use at most this many clips.
        seed: seed of their order.
        cache: file that lets a calibration resume; None: one in the user's cache folder.
        decode: ``auto``: decode what the clips need of each video; ``full``: all of it, to find any damage.
        readers: how many videos are read at once; None: one per core.
        fp8_attention: for ``fp8``, also find the ranges of Q, K and V.
        sampling: as for the exports that will use the ranges, like the three after it; see `ExportOptions`.
        stride: see there.
        short: see there.
        views: see there.
        skip_rewrites: exact rewrites to leave out; see `ExportOptions`.
        sensitivity: also measure how quantizing each layer changes the logits.
        revision: hub revision.
        allow_pickle: accept weights stored as a pickle.
        force: replace an existing ``output``.
        progress: receives each stage.

    Raises:
        UsageError: the options conflict, or there are no clips.
        OutputError: the file exists, or cannot be written.
        VivitExportError: see `obtain_ranges`.
    """
    calibration = CalibrationOptions(
        paths("data", data),
        method,
        smooth,
        num_clips,
        seed,
        path_or_none("cache", cache),
        decode=decode,
        readers=readers,
    )
    options = ExportOptions(
        find_precision(precision),
        sampling=sampling,
        stride=stride,
        short=short,
        views=views,
        skip_rewrites=skip_rewrites,
        allow_pickle=allow_pickle,
        revision=revision,
        force=force,
        calibration=calibration,
        fp8_attention=fp8_attention,
    )
    progress = progress if progress is not None else default_progress()
    with as_checkpoint(model, processor, progress.note) as checkpoint:
        named = name_of(checkpoint)
        return calibrate_model(named, output, options=options, sensitivity=sensitivity, progress=progress)


def calibrate_model(
    model: str,
    output: str | Path | None,
    *,
    options: ExportOptions,
    sensitivity: bool = False,
    observing: Observing | None = None,
    progress: Progress | None = None,
) -> Ranges:
    """Calibrate a checkpoint with the options of an export; see `calibrate`.

    Args:
        model: hub id, checkpoint folder, or ``demo``.
        output: file to write, to a temporary file that is then renamed; None: nothing is written.
        options: as for the exports that will use the ranges: precision, calibration, sampling, rewrites.
        sensitivity: also measure how quantizing each layer changes the logits.
        observing: where the clips are run, such as `vivit_export.datasets.calibrate.ObservingOnRay`; None: in this
            process.
        progress: receives each stage.

    Raises:
        UsageError: the precision needs no ranges.
        OutputError: the file exists, or cannot be written.
        VivitExportError: see `obtain_ranges`.
    """
    progress = progress if progress is not None else default_progress()
    path, precision = path_or_none("output", output), options.precision
    if not precision.quantized:
        raise UsageError(
            f"{option('precision', precision)} needs no calibration; choose {option('precision', 'int8')} or "
            f"{option('precision', 'fp8')}"
        )
    options.calibration.require_data(model)
    if path is not None:
        check_file(path, options.force)
    preview_checkpoint(model, revision=options.revision, allow_pickle=options.allow_pickle)
    remove_scratch(progress.note)
    with progress.stage("load the checkpoint"):
        checkpoint = load_checkpoint(model, revision=options.revision, allow_pickle=options.allow_pickle)
    for note in checkpoint.notes:
        progress.note(note)
    outputs = OUTPUTS if checkpoint.has_head else OUTPUTS[1:]
    with progress.stage("trace the network"):
        rewritten = rewrite_graph(checkpoint, outputs, precision, options.skip_rewrites)
    clip = options.sampled(checkpoint.clip)
    ranges = obtain_ranges(
        checkpoint,
        rewritten,
        clip,
        precision,
        options.calibration,
        progress,
        attention=options.fp8_attention,
        observing=observing or observe_here,
    )
    if sensitivity:
        ranges = _with_sensitivity(ranges, checkpoint, rewritten, options, progress)
    if path is not None:
        with writing_file(path, force=options.force, note=progress.note) as part:
            part.write_text(json_text(ranges.to_json()), encoding="utf-8")
    return ranges


def _with_sensitivity(
    ranges: Ranges, checkpoint: Checkpoint, rewritten: Rewritten, options: ExportOptions, progress: Progress
) -> Ranges:
    with progress.stage("run the float32 graph"):
        trials = Trials(checkpoint, rewritten, ranges, _some_crops(checkpoint, rewritten, options))
    found = measure_sensitivity(trials, ranges, progress)
    return dataclasses.replace(ranges, sensitivity=tuple(found))


def _some_crops(checkpoint: Checkpoint, rewritten: Rewritten, options: ExportOptions) -> npt.NDArray[np.uint8]:
    """Return the first of the calibration clips."""
    model = rewritten.model.clone()
    calibration_graph(checkpoint, model)
    contract = calibration_contract(checkpoint, model, options.sampled(checkpoint.clip))
    count = int(min(_MOST_CLIPS, max(1, _TRIAL_FLOPS / checkpoint.flops_per_clip)))
    with find_clips_of(contract, options.calibration) as (clips, _):
        return np.stack([crops for _, crops in islice(clips.read(), count)])

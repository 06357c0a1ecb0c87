"""``vivit calibrate``: find the ranges of a model once, inspect them, and use them in any number of exports."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivit_export.calibration.ranges import Ranges
from vivit_export.errors import UsageError, option
from vivit_export.export.calibrate import calibration_contract, calibration_graph, find_clips_of, obtain_ranges
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.graph.build import Rewritten, rewrite_graph
from vivit_export.export.options import OUTPUTS, ExportOptions
from vivit_export.export.trials import Trials, measure_sensitivity
from vivit_export.files import check_file, json_text, writing_file
from vivit_export.progress import Progress, Silent

_TRIAL_FLOPS = 8e12
"""Work of one trial: eight clips of ViViT-B/16x2, about ten seconds on two cores."""
_MOST_CLIPS = 64


def calibrate_model(
    model: str,
    output: str | Path,
    *,
    options: ExportOptions,
    sensitivity: bool = False,
    progress: Progress | None = None,
) -> Ranges:
    """Calibrate a checkpoint and write ``ranges.json``, to a temporary file that is then renamed.

    Args:
        model: hub id, checkpoint folder, or ``demo``.
        output: file to write.
        options: as for the exports that will use the ranges: precision, calibration, sampling, rewrites.
        sensitivity: also measure how quantizing each layer changes the logits.
        progress: receives each stage.

    Raises:
        UsageError: the precision needs no ranges.
        OutputError: the file exists, or cannot be written.
        VivitExportError: see `obtain_ranges`.
    """
    progress = progress if progress is not None else Silent()
    path, precision = Path(output), options.precision
    if not precision.quantized:
        raise UsageError(
            f"{option('precision', precision)} needs no calibration; choose {option('precision', 'int8')} or "
            f"{option('precision', 'fp8')}"
        )
    options.calibration.require_data(model)
    check_file(path, options.force)
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
    )
    if sensitivity:
        ranges = _with_sensitivity(ranges, checkpoint, rewritten, options, progress)
    with writing_file(path, force=options.force) as part:
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

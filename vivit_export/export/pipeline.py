"""The export from end to end: checkpoint in, verified bundle out.

Read `export_model` from top to bottom to follow the steps. Everything is written to a hidden
sibling of the target and renamed at the very end, so a failure at any stage leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vivit_export import __version__, bundle
from vivit_export.arguments import instance
from vivit_export.bundle import Bundle
from vivit_export.bundle.checks import DriftReport, Gate, measured_metrics
from vivit_export.bundle.golden import golden_rows, num_golden
from vivit_export.bundle.manifest import Content, ModelRecord, Producer
from vivit_export.bundle.sbom import Package, write_sbom
from vivit_export.bundle.tensors import save_tensors
from vivit_export.choices import AUTO
from vivit_export.contract import Contract
from vivit_export.errors import UsageError, counted, option
from vivit_export.export.amend import finish
from vivit_export.export.best_precision import export_best
from vivit_export.export.build import add_engine
from vivit_export.export.calibrate import layers_to_keep, obtain_ranges
from vivit_export.export.check import processor_parity, run_checks, run_eager
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.clips import CheckClips, load_check_clips, num_check_clips
from vivit_export.export.failed import FailedCheckError, keeping_the_report
from vivit_export.export.fields import ExportFields
from vivit_export.export.fixing import WideTrials, choose_wide
from vivit_export.export.graph.build import (
    Graph,
    Quantization,
    Rewritten,
    build_graph,
    rewrite_graph,
    save_graph,
    signature,
)
from vivit_export.export.in_memory import Saveable, as_checkpoint
from vivit_export.export.installed import installed_packages
from vivit_export.export.options import (
    OUTPUTS,
    ExportOptions,
    ExportPreview,
    loosest,
    model_name,
    preview_export,
)
from vivit_export.export.recipe import recipe_text
from vivit_export.export.trials import OF_THE_GATE, NoChoiceError, Trials, choose_kept
from vivit_export.export.undisturbed import undisturbed
from vivit_export.files import as_path, write_json
from vivit_export.leftovers import remove_scratch
from vivit_export.precision import Precision
from vivit_export.progress import Progress, default_progress
from vivit_export.report.facts import declined_texts
from vivit_export.report.html import golden_pictures
from vivit_export.runtime.drift.clip_view import ClipTally
from vivit_export.runtime.drift.metrics import parse_gate
from vivit_export.runtime.drift.parity import graph_parity
from vivit_export.runtime.drift.per_clip import Outputs

if TYPE_CHECKING:
    from typing import Unpack


@undisturbed
def export_model(
    model: str | Path | Saveable,
    target: str | Path | None = None,
    *,
    processor: Saveable | None = None,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
    **fields: Unpack[ExportFields],
) -> Bundle:
    """Export a checkpoint to a verified bundle.

    Args:
        model: hub id, checkpoint folder, ``demo``, or a model of transformers in memory.
        target: folder to write; by default named after the model and the precision.
        processor: the image or video processor of a model in memory.
        options: what to do; see `ExportOptions`.
        progress: receives each stage.
        **fields: fields of `ExportOptions`, such as ``precision="fp16"``, which override those in ``options``.
            ``precision="auto"`` tries every precision and keeps the fastest that is inside its gate.

    Returns:
        The bundle, read back from disk with its hashes verified.

    Raises:
        VivitExportError: the export failed; the subclass says how. The target is as it was before. If the check failed,
            its report is beside it, see `vivit_export.export.failed`.
    """
    progress = progress if progress is not None else default_progress()
    with as_checkpoint(model, processor, progress.note) as checkpoint:
        if fields.get("precision") == AUTO:
            place = None if target is None else as_path(target, "target")
            return export_best(_export, checkpoint, place, _for_all(options, fields), progress)
        return _export(checkpoint, target, _with_fields(options, fields), progress)


def _for_all(options: ExportOptions | None, fields: ExportFields) -> ExportOptions:
    """Return the options of a search, of which each precision gets its part."""
    attention = fields.get("fp8_attention", getattr(options, "fp8_attention", False))
    return _with_fields(options, {**fields, "precision": loosest(attention)})


def _export(model: str | Path, target: str | Path | None, options: ExportOptions, progress: Progress) -> Bundle:
    """Export one precision."""
    plan = preview_export(model, None if target is None else as_path(target, "target"), options)
    model = plan.model
    if plan.attention_note:
        progress.note(plan.attention_note)
    remove_scratch(progress.note)
    with progress.stage("load the checkpoint"):
        checkpoint = load_checkpoint(model, revision=options.revision, allow_pickle=options.allow_pickle)
    for note in (*checkpoint.notes, *_sampling_notes(checkpoint, options)):
        progress.note(note)
    with (
        keeping_the_report(plan.target, progress),
        bundle.writing(plan.target, force=options.force, note=progress.note) as work,
    ):
        content = _export_into(work, checkpoint, plan, progress)
        is_folder = checkpoint.revision is None and checkpoint.source != "demo"
        recipe = recipe_text(plan, is_folder=is_folder, revision=checkpoint.revision)
        (work / bundle.RECIPE).write_text(recipe, encoding="utf-8")
        if options.sbom:
            write_sbom(work, content, _packages(content))
        return finish(work, content, plan.target, progress)


def _sampling_notes(checkpoint: Checkpoint, options: ExportOptions) -> list[str]:
    """Return how the authors of a family draw clips, if nobody said how."""
    family = checkpoint.adapter.family
    if family.sampling is None or options.sampled(checkpoint.clip) != checkpoint.clip:
        return []
    return [f"the authors of {family.title} draw clips with {family.sampling}; without that, frames are spread evenly"]


def _packages(content: Content) -> list[Package]:
    """Return what made a bundle."""
    engines = {engine.flavour.extra for engine in content.engines.values()}
    return installed_packages({"export", *engines, *({"cpu"} if content.checks else ())})


def _with_fields(options: ExportOptions | None, fields: ExportFields) -> ExportOptions:
    options = ExportOptions() if options is None else instance("options", options, ExportOptions)
    known = {f.name for f in dataclasses.fields(ExportOptions)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not an export option; use one of {', '.join(sorted(known))}")
    return dataclasses.replace(options, **fields)  # type: ignore[arg-type]  # the options take all that


def _export_into(work: Path, checkpoint: Checkpoint, plan: ExportPreview, progress: Progress) -> Content:
    options = plan.options
    outputs = _choose_outputs(checkpoint, options.outputs)
    gate = parse_gate(
        options.gate, options.precision, measured=measured_metrics(outputs, checkpoint.task, len(checkpoint.labels))
    )
    quantization, failed = None, None
    if options.precision.quantized:
        quantization, failed = _quantization(work, checkpoint, outputs, options, gate, progress)
    rewritten, keep_fp32 = None, options.keep_fp32
    if options.fix and not options.fp8_attention and failed is None:
        rewritten, keep_fp32, failed = _fix(checkpoint, outputs, plan, gate, quantization, progress)
    if failed is not None:  # the check of what was asked for, within the limits of the search, is the report
        gate = gate.tightened(OF_THE_GATE)
    with progress.stage("trace the network" if quantization is None else "quantize the graph"):
        graph = build_graph(
            checkpoint,
            precision=options.precision,
            form=plan.attention,
            opset=plan.opset,
            input_mode=options.input_mode,
            outputs=outputs,
            frame_size=options.frame_size,
            skip_rewrites=options.skip_rewrites,
            quantization=quantization,
            keep_fp32=keep_fp32,
            rewritten=rewritten,
        )
        save_graph(graph.model, work)
    for text in declined_texts(graph.facts):
        progress.detail(f"unchanged: {text}")
    io = signature(graph.model, options.input_mode, options.frame_size)
    contract = Contract(options.sampled(checkpoint.clip), checkpoint.preprocess, io, checkpoint.labels, checkpoint.task)
    checks = _check(work, checkpoint, graph, contract, options, gate, progress) if options.check else None
    content = Content(Producer(__version__), _provenance(checkpoint), contract, graph.facts, checks=checks)
    if checks is not None and not checks.passed:
        told = ("", failed.sentence) if failed is not None else (_consequence(options), None)
        raise FailedCheckError(content, golden_pictures(work, content), told[0], failure=told[1])
    if failed is not None:
        raise failed
    del graph
    for flavour in plan.flavours:
        content = add_engine(work, content, flavour, options.engine, progress)
    for name, reason in plan.skipped.items():
        progress.note(f"{name} left out: {reason}")
    return content


def _consequence(options: ExportOptions) -> str:
    """Return how the sentence of a failed check ends: what it means, and what to do."""
    ways = ["a wider type drifts less", f"{option('gate')} changes a limit"]
    if options.precision.base.rounds and not options.fix:
        ways.insert(1, f"{option('fix')} keeps what needs it in a wider type")
    return f"; no bundle was written ({', '.join(ways)})"


def _quantization(
    work: Path,
    checkpoint: Checkpoint,
    outputs: tuple[str, ...],
    options: ExportOptions,
    gate: Gate,
    progress: Progress,
) -> tuple[Quantization, NoChoiceError | None]:
    """Return how to quantize; with an error, if no choice of layers meets the gate: then none is kept."""
    with progress.stage("trace the network"):
        rewritten = rewrite_graph(checkpoint, outputs, options.precision, options.skip_rewrites)
    clip = options.sampled(checkpoint.clip)
    attention = options.fp8_attention
    ranges = obtain_ranges(
        checkpoint,
        rewritten,
        clip,
        options.precision,
        options.calibration,
        progress,
        attention=attention,
        skip_rewrites=options.skip_rewrites,
    )
    failed = None
    if options.fix or options.keep_fp16 == "auto":
        with progress.stage("run the float32 graph"):
            trials = Trials(checkpoint, rewritten, ranges, _check_clips(checkpoint, rewritten, options).crops)
        try:
            kept, ranges = choose_kept(trials, ranges, gate, progress, attention=attention)
        except NoChoiceError as e:
            kept, failed = ranges.dead, e
    else:
        kept = layers_to_keep(ranges, options.keep_fp16)
    write_json(work / bundle.RANGES, ranges.to_json())
    return Quantization(rewritten, ranges, kept, attention), failed


def _fix(
    checkpoint: Checkpoint,
    outputs: tuple[str, ...],
    plan: ExportPreview,
    gate: Gate,
    quantization: Quantization | None,
    progress: Progress,
) -> tuple[Rewritten, str | None, NoChoiceError | None]:
    """Return the graph after the exact rewrites, the nodes to keep in float32 as a regular expression, or an error."""
    options, precision = plan.options, plan.options.precision
    if quantization is not None:
        rewritten = quantization.rewritten
    else:
        with progress.stage("trace the network"):
            rewritten = rewrite_graph(checkpoint, outputs, precision, options.skip_rewrites)
    clips = _check_clips(checkpoint, rewritten, options)
    with progress.stage(f"run eager fp32 on {counted(len(clips.names), 'clips')}"):
        reference = checkpoint.run_eager(clips.each)
    trials = WideTrials(rewritten, checkpoint, precision, plan.attention, clips.each, reference, quantization)
    try:
        return rewritten, choose_wide(trials, gate, progress), None
    except NoChoiceError as e:
        return rewritten, None, e


def _check_clips(checkpoint: Checkpoint, rewritten: Rewritten, options: ExportOptions) -> CheckClips:
    """Return the clips that the check will use."""
    io, clip = signature(rewritten.model, "pixels"), options.sampled(checkpoint.clip)
    limit = num_check_clips(options.num_clips, options.clips, checkpoint.flops_per_clip)
    return load_check_clips(Contract(clip, checkpoint.preprocess, io, checkpoint.labels), options.clips, limit)


def _choose_outputs(checkpoint: Checkpoint, wanted: tuple[str, ...]) -> tuple[str, ...]:
    available = OUTPUTS if checkpoint.has_head else ("embedding",)
    missing = [name for name in wanted if name not in available]
    if missing:
        raise UsageError(f"{option('outputs', missing[0])}: this checkpoint has no classifier head, only an embedding")
    return tuple(name for name in available if not wanted or name in wanted)


def _check(
    work: Path,
    checkpoint: Checkpoint,
    graph: Graph,
    contract: Contract,
    options: ExportOptions,
    gate: Gate,
    progress: Progress,
) -> DriftReport:
    with progress.stage("read the clips"):
        limit = num_check_clips(options.num_clips, options.clips, checkpoint.flops_per_clip)
        clips = load_check_clips(contract, options.clips, limit, progress.note)
    reference = run_eager(checkpoint, contract, clips, Precision.FP32, progress)
    base = options.precision.base
    low = run_eager(checkpoint, contract, clips, base, progress) if base.rounds else None
    _write_golden(work, clips, reference, progress)
    tally = ClipTally(reference, gate.tie_margin, contract.task, contract.labels)
    with progress.stage("check the graph against eager"):
        runs = run_checks(
            work,
            graph.model,
            precision=options.precision,
            contract=contract,
            clips=clips,
            reference=reference,
            eager_low=low,
            gate=gate,
            batches=options.batches,
            scores_bytes=checkpoint.anatomy.scores_bytes,
            tally=tally,
        )
    with progress.stage("compare preprocessed pixels"):
        in_graph = graph_parity(
            lambda name: (work / name).read_bytes(), contract, graph.facts, clips.frames, clips.crops
        )
        parity = (processor_parity(contract, options.clips, clips.checked), *([in_graph] if in_graph else []))
    name = f"eager fp32, {checkpoint.framework}"
    return DriftReport(name, clips.checked, gate, tuple(runs), parity, view=tally.view(clips.checked, runs))


def _write_golden(work: Path, clips: CheckClips, reference: Outputs, progress: Progress) -> None:
    count = len(clips.frames)
    kept = num_golden(count, clips.frames[0].nbytes)
    arrays: Mapping[str, npt.NDArray[Any]] = {"frames": clips.frames, **reference}
    if kept < count:
        rows = golden_rows(count, kept)
        arrays = {name: array[rows] for name, array in arrays.items()}
        size = arrays["frames"].nbytes / (1 << 20)
        progress.note(f"{bundle.GOLDEN} keeps {kept} of the {count} clips, spaced evenly ({size:.0f} MiB)")
    save_tensors(arrays, work / bundle.GOLDEN)


def _provenance(checkpoint: Checkpoint) -> ModelRecord:
    parameters = sum(int(np.prod(p.shape)) for p in checkpoint.network.parameters())
    # A folder's place on this machine is not part of what the bundle is; its name helps people.
    source = checkpoint.source if checkpoint.revision or checkpoint.source == "demo" else model_name(checkpoint.source)
    return ModelRecord(
        id=source,
        parameters=parameters,
        num_blocks=checkpoint.num_layers,
        anatomy=checkpoint.anatomy,
        config=checkpoint.config,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256,
        notes=checkpoint.notes,
    )

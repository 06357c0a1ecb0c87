"""Calibrate a checkpoint: from its rewritten float32 graph and the user's clips to `Ranges`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from vivit_export.anatomy import Anatomy
from vivit_export.bundle import MODEL
from vivit_export.bundle.manifest import ClipsRecord
from vivit_export.bundle.tensors import save_tensors
from vivit_export.calibration.cache import default_cache
from vivit_export.calibration.clips import FEWEST_CLIPS, GOOD_CLIPS, CalibrationClips, find_calibration_clips
from vivit_export.calibration.collect import Observing, collect, observe_here
from vivit_export.calibration.linears import LinearGroup
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.calibration.ranges import Ranges, read_ranges
from vivit_export.calibration.smoothing import find_ranges
from vivit_export.contract import Clip, Contract
from vivit_export.demo.motion import LABELS, render_clip
from vivit_export.errors import PrecisionError, UsageError, option
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.graph.build import Rewritten, save_graph, signature
from vivit_export.export.graph.pixels import prepend_pixels
from vivit_export.export.graph.quantize import name_inputs
from vivit_export.export.graph.quantize_attention import name_attention_inputs
from vivit_export.leftovers import remove_leftovers, scratch
from vivit_export.precision import Precision
from vivit_export.progress import Progress
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.clips.video.reading import Reading, ignore, told_by

_OPSET = 23  # holds Attention as an op, of which ONNX Runtime keeps no scores
_DEMO_CLIPS, _DEMO_SEED = 256, 500_000  # between the seeds of the demo's evaluations and those of its training


def obtain_ranges(
    checkpoint: Checkpoint,
    rewritten: Rewritten,
    clip: Clip,
    precision: Precision,
    options: CalibrationOptions,
    progress: Progress,
    *,
    attention: bool = False,
    skip_rewrites: Sequence[str] = (),
    observing: Observing = observe_here,
) -> Ranges:
    """Read ranges, or calibrate.

    Args:
        checkpoint: where the graph comes from.
        rewritten: the float32 graph; not modified.
        clip: how clips are drawn from videos.
        precision: type of the codes.
        options: how to calibrate.
        progress: receives each stage.
        attention: also find the ranges of Q, K and V.
        skip_rewrites: what was left out of ``rewritten``, for messages.
        observing: see `collect`.

    Raises:
        ClipError: the clips cannot be used.
        CalibrationError: the ranges, the cache or the activations cannot be used.
        OutputError: the cache cannot be written.
    """
    key = {
        "model": graph_sha256(rewritten.model, checkpoint.anatomy),
        "weights": _sha256_of_json(checkpoint.weights_sha256),
        "contract": _sha256_of_json([dataclasses.asdict(clip), dataclasses.asdict(checkpoint.preprocess)]),
    }
    if options.ranges is not None:
        ranges = read_ranges(options.ranges)
        command = ["vivit calibrate MODEL", f"--{precision}", *(["--fp8-attention"] if attention else [])]
        command += ["--calibration-data DIR", *_sampling_flags(clip, checkpoint.clip)]
        command += [f"--no-rewrite {name}" for name in skip_rewrites]
        ranges.require(key, precision, options.ranges, " ".join(command))
        return ranges
    model = rewritten.model.clone()
    blocks = name_attention_inputs(model) if attention else {}
    groups = calibration_graph(checkpoint, model)
    if not groups:
        raise PrecisionError(
            "the graph has no Linears of an encoder to quantize, so there is nothing to calibrate; report it with the "
            "version of transformers"
        )
    contract = calibration_contract(checkpoint, model, clip)
    return _calibrate(
        _Calibration(model, groups, blocks, contract, checkpoint.anatomy.tokens, key, precision, options),
        observing,
        progress,
    )


def _sampling_flags(clip: Clip, default: Clip) -> list[str]:
    """Return what makes one of the other, as in a shell: ranges belong to the clips that are drawn in one way."""
    names = ("sampling", "stride", "short", "views")
    changed = {name: getattr(clip, name) for name in names if getattr(clip, name) != getattr(default, name)}
    return [f"--{name} {'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in changed.items()]


@dataclasses.dataclass(frozen=True)
class _Calibration:
    """A calibration to run.

    Attributes:
        model: from `calibration_graph`.
        groups: its layers.
        blocks: names of Q, K and V by block, if attention is quantized too.
        contract: of the graph.
        tokens: of a clip.
        key: hash of everything that the ranges depend on, except the clips.
        precision: type of the codes.
        options: how to calibrate.
    """

    model: ir.Model
    groups: list[LinearGroup]
    blocks: dict[str, tuple[str, ...]]
    contract: Contract
    tokens: int
    key: dict[str, str]
    precision: Precision
    options: CalibrationOptions

    @property
    def tensors(self) -> list[str]:
        """Return the names of the observed tensors."""
        return [*(group.tensor for group in self.groups), *(name for names in self.blocks.values() for name in names)]


def _calibrate(job: _Calibration, observing: Observing, progress: Progress) -> Ranges:
    options = job.options
    with ExitStack() as stack:
        with progress.stage("find the calibration clips"):
            clips, source = stack.enter_context(find_clips_of(job.contract, options, progress))
            key = {**job.key, "clips": clips.sha256}
            if job.blocks:
                key["set of tensors"] = _sha256_of_json(job.blocks)
            cache = options.cache or default_cache(key)
            remove_leftovers(Path(os.path.realpath(cache)), progress.note)
        if len(clips) < GOOD_CLIPS:
            progress.note(f"{len(clips)} calibration clips are few: the ranges settle with {GOOD_CLIPS} or more")
        folder = stack.enter_context(scratch())
        with progress.counting("calibrate", len(clips), "clips") as count:
            save_graph(job.model, folder)
            try:
                state = collect(
                    folder / MODEL, job.tensors, clips, tokens=job.tokens, cache=cache, key=key, count=count,
                    observing=observing,
                )  # fmt: skip
            except KeyboardInterrupt:
                progress.note(f"the clips done so far are kept in {cache}; the same command continues with the others")
                raise
    for name, reason in state.set_aside.items():
        progress.note(f"not used for calibration: {name}: {reason}")
    told = ClipsRecord(source, len(state.done), options.seed, state.set_aside)
    with progress.counting(f"find the ranges by {options.method}", len(job.groups), "layers") as count:
        return find_ranges(
            job.groups,
            job.blocks,
            state,
            precision=job.precision,
            method=options.method,
            smooth=options.smooth,
            key=key,
            clips=told,
            count=count,
        )


def layers_to_keep(ranges: Ranges, keep: str | None) -> tuple[str, ...]:
    """Return the names of the layers that a regular expression keeps in fp16.

    Raises:
        UsageError: it matches none, or all.
    """
    if keep is None or keep == "auto":
        return ()
    kept = tuple(name for name in ranges.layers if re.search(keep, name))
    if len(kept) in (0, len(ranges.layers)):
        raise UsageError(
            f"{option('keep_fp16', repr(keep))} matches {len(kept)} of {len(ranges.layers)} layers; they are named "
            f"like {', '.join(list(ranges.layers)[:4])}"
        )
    return kept


def calibration_graph(checkpoint: Checkpoint, model: ir.Model) -> list[LinearGroup]:
    """Prepare a rewritten graph to run on uint8 crops, with the inputs of layers named; return the layers in float."""
    layers = name_inputs(model, checkpoint.anatomy)
    prepend_pixels(model, Preprocessor(checkpoint.clip, checkpoint.preprocess))
    model.graph.opset_imports[""] = _OPSET
    model.ir_version = 10
    return layers


def calibration_contract(checkpoint: Checkpoint, model: ir.Model, clip: Clip) -> Contract:
    """Return the contract of a graph from `calibration_graph`."""
    return Contract(clip, checkpoint.preprocess, signature(model, "crops"), checkpoint.labels)


@contextmanager
def find_clips_of(
    contract: Contract, options: CalibrationOptions, progress: Progress | None = None
) -> Iterator[tuple[CalibrationClips, str]]:
    """Find the clips that the options name, and a title for them; the demo's are rendered to a temporary file."""
    find = partial(
        find_calibration_clips,
        contract=contract,
        limit=options.num_clips,
        seed=options.seed,
        fewest=FEWEST_CLIPS,
        reading=Reading(options.decode, note=told_by(progress) if progress else ignore),
        readers=options.readers,
        note=progress.note if progress else None,
    )
    if options.data:
        # A folder's place on this machine is not part of what the bundle is; its name helps people.
        source = ", ".join(place.absolute().name for place in options.data)
        yield find(options.data), source
        return
    with scratch() as folder:
        path = folder / "motion.safetensors"
        seeds = range(_DEMO_SEED, _DEMO_SEED + (options.num_clips or _DEMO_CLIPS))
        save_tensors({"frames": motion_clips(contract, seeds)}, path)
        yield find(path), "motion clips rendered for the demo"


def motion_clips(
    source: Contract | Checkpoint, seeds: Sequence[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Render the demo's motions: its training distribution, with other seeds.

    Returns:
        Crops, uint8 (N, T, H, W, 3); labels take turns, landscape and portrait too.
    """
    preprocessor = Preprocessor(source.clip, source.preprocess)
    height, width = source.clip.height, source.clip.width
    sizes = ((height * 5 // 4, width * 7 // 4), (height * 7 // 4, width * 5 // 4))
    return np.stack(
        [
            preprocessor.crops(
                render_clip(
                    LABELS[seed % len(LABELS)],
                    seed=seed,
                    num_frames=source.clip.num_frames,
                    height=sizes[seed % 2][0],
                    width=sizes[seed % 2][1],
                )
            )
            for seed in seeds
        ]
    )


def graph_sha256(model: ir.Model, anatomy: Anatomy) -> str:
    """Return the hash of a graph's encoder and embeddings: nodes, attributes and weights, but not its outputs."""
    digest = hashlib.sha256()
    for node in model.graph:
        if not anatomy.in_encoder(str(node.name)):
            continue
        attributes = sorted(f"{name}={attribute.value}" for name, attribute in node.attributes.items())
        digest.update(f"{node.op_type} {node.name} {[v.name if v else '' for v in node.inputs]} {attributes}".encode())
        for value in node.inputs:
            if value is not None and value.const_value is not None:
                digest.update(value.const_value.tobytes())
    return digest.hexdigest()


def _sha256_of_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

"""What an export is asked to do, and what that means on this machine, decided before any work starts.

Nothing heavy is imported, so that a mistake on the command line is reported at once.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from vivit_export import runtime
from vivit_export.arguments import (
    instance,
    pair_or_none,
    path_or_none,
    set_fields,
    text,
    text_or_none,
    texts,
    three,
    whole_or_none,
    wholes,
)
from vivit_export.bundle import check_target
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.choices import AttentionForm
from vivit_export.contract import Clip, InputMode, Sampling, Short
from vivit_export.errors import MissingDependencyError, UsageError, option
from vivit_export.export.checkpoint.files import find_folder
from vivit_export.export.checkpoint.preview import name_of, preview_checkpoint
from vivit_export.export.engine.options import EngineOptions
from vivit_export.flavour import Flavour
from vivit_export.limits import MOST_CAMERA_SIDE
from vivit_export.packages import require_codes_beside_attention, require_export_packages
from vivit_export.precision import Precision, find_precision
from vivit_export.records import JsonObject
from vivit_export.rewrite import REWRITE_NAMES
from vivit_export.runtime.clips.sampling import choose_sampling
from vivit_export.runtime.drift.metrics import parse_gate

Attention = Literal["auto", AttentionForm]
OUTPUTS = ("logits", "embedding")

_MAX_OPSET = 24
_ATTENTION_OPSET = 23  # the first with Attention as an op


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of one export; names follow the command line.

    Paths may be given as strings, one target, output, rewrite or SM alone, and several in any sequence.

    Attributes:
        precision: type of weights and GEMMs.
        targets: ``onnx``, ``tensorrt``, ``tensorrt-rtx``, or ``auto``: every engine that this machine can build.
        sms: compute capabilities to compile for ahead of time (TensorRT-RTX), such as 89.
        batches: (min, opt, max) of the engine's optimization profile, in clips.
        input_mode: ``crops`` (uint8), ``pixels`` (float32), or ``frames`` (uint8, resized in the graph).
        frame_size: (height, width) of ``frames``.
        sampling: rule that draws a clip from a video. Like ``stride``, ``short`` and ``views``, it sets the field
            of `Clip` of that name, which the bundle records; None: what the checkpoint implies.
        stride: distance between the frames; given alone, it implies sampling ``stride``.
        short: what to do with a video that has too few frames.
        views: (temporal, spatial) clips per video whose logits are averaged.
        outputs: subset of ``logits`` and ``embedding``; empty: all that the checkpoint has.
        attention: form of attention in the graph; ``auto``: see `attention_form`.
        skip_rewrites: names of exact graph rewrites to leave out; see `vivit_export.rewrite`.
        opset: ONNX opset, or None for the lowest that has the graph's ops.
        clips: folder of videos (or one video) to check on; None: the bundled clips.
        num_clips: use at most this many of them; None: all of the user's, or as many of the bundled ones as
            two TFLOP of eager work allow.
        check: whether to compare the graph with eager before anything is written.
        gate: limits such as ``top1=0.99,max=0.02``, over the precision's defaults.
        allow_unfused: accept an engine with unfused attention.
        timing_cache: file that keeps TensorRT's kernel timings between builds.
        force: replace an existing bundle.
        allow_pickle: accept weights stored as a pickle.
        revision: hub revision.
        calibration: for ``int8`` and ``fp8``.
        keep_fp16: for these, layers that stay in fp16: ``auto`` (as few as possible while meeting the gate), or
            a regular expression that matches their names; None: none.
        fp8_attention: for ``fp8``, quantize attention too.
        keep_fp32: for all but ``fp32``, nodes that stay in float32: a regular expression that is searched in their
            names, such as ``layers.3.mlp.fc1/MatMul``; None: none.
        fix: if the drift is beyond the gate, keep the smallest set of layers in a wider type that meets it: in INT8 and
            FP8 layers in fp16 (as ``keep_fp16="auto"``), then in all but ``fp32`` nodes in float32.
        sbom: add a bill of materials, ``sbom.cdx.json``, in CycloneDX 1.6.
    """

    precision: Precision = Precision.FP32
    targets: tuple[str, ...] = ("auto",)
    sms: tuple[int, ...] = ()
    batches: tuple[int, int, int] = (1, 4, 8)
    input_mode: InputMode = "crops"
    frame_size: tuple[int, int] | None = None
    sampling: Sampling | None = None
    stride: int | None = None
    short: Short | None = None
    views: tuple[int, int] | None = None
    outputs: tuple[str, ...] = ()
    attention: Attention = "auto"
    skip_rewrites: tuple[str, ...] = ()
    opset: int | None = None
    clips: Path | None = None
    num_clips: int | None = None
    check: bool = True
    gate: str | None = None
    allow_unfused: bool = False
    timing_cache: Path | None = None
    force: bool = False
    allow_pickle: bool = False
    revision: str | None = None
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    keep_fp16: str | None = None
    fp8_attention: bool = False
    keep_fp32: str | None = None
    fix: bool = False
    sbom: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", find_precision(self.precision))
        set_fields(self, whole_or_none, "stride", "opset", "num_clips")
        set_fields(self, pair_or_none, "frame_size", "views")
        set_fields(self, three, "batches")
        set_fields(self, wholes, "sms")
        set_fields(self, texts, "targets", "outputs", "skip_rewrites")
        set_fields(self, text, "input_mode", "attention")
        set_fields(self, text_or_none, "sampling", "short", "gate", "revision", "keep_fp16", "keep_fp32")
        set_fields(self, path_or_none, "clips", "timing_cache")
        instance("calibration", self.calibration, CalibrationOptions)
        self._check_precision()
        self._check_input()
        self.sampled(Clip(1, 1, 1, (1, 1, 1)))
        _one_of("attention", self.attention, get_args(Attention))
        for rewrite in self.skip_rewrites:
            _one_of("skip_rewrites", rewrite, REWRITE_NAMES)
        for output in self.outputs:
            _one_of("outputs", output, OUTPUTS)
        self._check_check()
        self._check_opset()
        self.engine.check_targets(self.targets, self.precision)
        self._check_engines_wanted()

    @property
    def engine(self) -> EngineOptions:
        """The options that are about engines."""
        return EngineOptions(self.batches, self.sms, self.timing_cache, self.allow_unfused)

    def sampled(self, clip: Clip) -> Clip:
        """Return a clip with the requested sampling."""
        return choose_sampling(clip, self.sampling, self.stride, self.short, self.views)

    def _check_precision(self) -> None:
        given = option("precision", self.precision)
        if self.precision.quantized:
            Flavour.TENSORRT_RTX.check_sms(self.sms, self.precision)
        elif self.keep_fp16 is not None or self.calibration != CalibrationOptions():
            raise UsageError(
                f"calibration options have no effect on {given}; add {option('precision', 'int8')} or "
                f"{option('precision', 'fp8')}, or leave them out"
            )
        fp8_attention = option("fp8_attention")
        if self.fp8_attention and self.precision is not Precision.FP8:
            raise UsageError(
                f"{fp8_attention} has no effect on {given}; add {option('precision', 'fp8')}, or leave it out"
            )
        if self.fp8_attention and self.attention == "fused-op":
            raise UsageError(
                f"{fp8_attention} needs the softmax in the graph, which {option('attention', 'fused-op')} hides"
            )
        if self.keep_fp16 == "auto" and not self.check:
            raise UsageError(f"{option('keep_fp16', 'auto')} needs the check, which {option('check', False)} turns off")
        if self.keep_fp32 is not None and not self.precision.rounds:
            raise UsageError(
                f"{option('keep_fp32')} has no effect on {given}, in which everything is float32; leave it out"
            )
        if self.keep_fp32 is not None and self.fp8_attention:
            raise UsageError(f"{option('keep_fp32')} and {fp8_attention} exclude each other; leave one of them out")
        self._check_fix()
        for name in ("keep_fp16", "keep_fp32"):
            _require_pattern(name, getattr(self, name))

    def _check_fix(self) -> None:
        if not self.fix:
            return
        fix = option("fix")
        if not self.precision.rounds:
            raise UsageError(f"{fix} has no effect on {option('precision', 'fp32')}, of which no type is wider")
        if not self.check:
            raise UsageError(f"{fix} needs the check, which {option('check', False)} turns off")
        for name in ("keep_fp16", "keep_fp32"):
            if getattr(self, name) is not None:
                raise UsageError(f"{fix} chooses what to keep; leave it or {option(name)} out")

    def _check_input(self) -> None:
        _one_of("input_mode", self.input_mode, get_args(InputMode))
        frames = option("input_mode", "frames")
        if (self.input_mode == "frames") != (self.frame_size is not None):
            raise UsageError(f"{frames} and {option('frame_size')} belong together: give both or neither")
        if self.frame_size is not None and not all(1 <= side <= MOST_CAMERA_SIDE for side in self.frame_size):
            height, width = self.frame_size
            raise UsageError(
                f"{option('frame_size', f'{width}x{height}')} is not a size of a video frame (1 to {MOST_CAMERA_SIDE} "
                "a side)"
            )
        if self.input_mode == "frames" and self.views is not None and self.views[1] > 1:
            raise UsageError(
                f"{option('views')} with 3 spatial views needs a crop to move; {frames} crops in the graph"
            )

    def _check_check(self) -> None:
        off = option("check", False)
        if self.num_clips is not None and self.num_clips < 1:
            raise UsageError(f"{option('num_clips', self.num_clips)} must be at least 1; {off} turns the check off")
        if not self.check and (self.gate or self.clips or self.num_clips):
            raise UsageError(
                f"{off} cannot be combined with {option('gate')}, {option('clips')} or {option('num_clips')}"
            )

    def _check_opset(self) -> None:
        if self.opset is None:
            return
        lowest = _ATTENTION_OPSET if self.attention == "fused-op" else self.precision.lowest_opset
        if not lowest <= self.opset <= _MAX_OPSET:
            op = (
                "Attention is an op since 23"
                if lowest == _ATTENTION_OPSET
                else "Gelu is an op since 20, bf16 Conv since 22"
            )
            raise UsageError(f"{option('opset', self.opset)} is outside {lowest} to {_MAX_OPSET} for this graph ({op})")

    def _check_engines_wanted(self) -> None:
        if {"auto", *Flavour} & set(self.targets):
            return
        given = {"allow_unfused": self.allow_unfused, "batches.min": self.batches[0] != 1}
        for name in (name for name, value in given.items() if value):
            raise UsageError(
                f"{option(name)} is about engines and {option('targets', 'onnx')} builds none; leave one of them out"
            )

    def attention_form(self, builds_engine: bool) -> AttentionForm:
        """Resolve ``auto``: the pattern if an engine is built, the op otherwise.

        TensorRT fuses the pattern with fewer copies around it (126 layers against 144 for ViViT-B
        fp16) and still compiles it in fp32, where it has no fused kernel. With the op, ONNX Runtime
        needs half the memory.
        """
        if self.attention != "auto":
            return self.attention
        low_opset = self.opset is not None and self.opset < _ATTENTION_OPSET
        return "pattern" if builds_engine or low_opset or self.fp8_attention else "fused-op"

    def opset_for(self, form: AttentionForm) -> int:
        """Return the requested opset, or the lowest that has the graph's ops."""
        if self.opset is not None:
            return self.opset
        return _ATTENTION_OPSET if form == "fused-op" else self.precision.lowest_opset


@dataclass(frozen=True)
class ExportPreview:
    """What an export would do, as ``--dry-run`` prints it.

    Attributes:
        model: checkpoint as named.
        target: folder to write.
        options: the requested options.
        flavours: engines that will be built.
        skipped: engines that ``auto`` leaves out on this machine, and why.
        attention: form in the graph.
        opset: declared version.
    """

    model: str
    target: Path
    options: ExportOptions
    flavours: tuple[Flavour, ...]
    skipped: dict[Flavour, str]
    attention: AttentionForm
    opset: int

    @property
    def attention_note(self) -> str:
        """A remark if the form of attention differs from that of an export with an engine; else empty."""
        if self.options.attention != "auto" or self.flavours or self.attention != "fused-op":
            return ""
        return (
            f"attention as one op (fused-op, opset {self.opset}), because no engine is built; with an engine it is "
            f"MatMuls that compilers fuse (pattern, opset {self.options.precision.lowest_opset})"
        )

    def sms(self, flavour: Flavour) -> tuple[int, ...]:
        """Return the compute capabilities to build an engine for ahead of time; empty: this machine's GPU."""
        return flavour.check_sms(self.options.engine.for_flavour(flavour).sms, self.options.precision)

    def to_json(self) -> JsonObject:
        """Return JSON types."""
        o = self.options
        return {
            "model": self.model,
            "target": str(self.target),
            "precision": o.precision,
            "attention": self.attention,
            "opset": self.opset,
            "input": o.input_mode,
            "frame_size": list(o.frame_size) if o.frame_size else None,
            "batches": list(o.batches),
            "engines": {f: {"sms": list(self.sms(f))} for f in self.flavours},
            "skipped": self.skipped,
            "check": o.check,
        }


def loosest(fp8_attention: bool) -> Precision:
    """Return the precision that takes the options of all others, for options of which each candidate gets its part."""
    return Precision.FP8 if fp8_attention else Precision.INT8


def default_target(model: str, precision: Precision | Literal["auto"]) -> Path:
    """Return the default folder: the model's own name and the precision, in the current folder."""
    name = "vivit-demo" if model == "demo" else model_name(model)
    return Path(f"{name}-{precision}")


def model_name(model: str) -> str:
    """Return the name of a folder (also of ``.``), or of a model on the hub without its owner."""
    folder = Path(os.path.expanduser(model))
    return folder.resolve().name if os.path.isdir(folder) else folder.name


def preview_export(model: str | Path, target: Path | None, options: ExportOptions) -> ExportPreview:
    """Decide everything that can be decided before the weights are read.

    Raises:
        CheckpointError: the folder is not a checkpoint that can be exported.
        UsageError: the options conflict.
        MissingDependencyError: the extra ``export`` is not installed, or ONNX Runtime for the check.
        EnvironmentFault: this machine cannot build a requested target.
        OutputError: the folder exists or cannot be written.
        ClipError: there are no clips to check on.
    """
    model = name_of(model)
    if options.precision.quantized:
        options.calibration.require_data(model)
    find_folder(model, options.revision)  # what is neither a folder nor on the hub has no name to give to a target
    target = target or default_target(model, options.precision)
    parse_gate(options.gate, options.precision)
    flavours, skipped = options.engine.choose_flavours(options.targets)
    form = options.attention_form(bool(flavours))
    check_target(target, options.force)
    if options.clips is not None:
        runtime.find_clips(options.clips)
    if options.check and importlib.util.find_spec("onnxruntime") is None:
        extras = "cpu" if importlib.util.find_spec("torch") else "export,cpu"  # one command installs all that lacks
        raise MissingDependencyError(
            "the check runs the graph in ONNX Runtime, which is not installed; "
            f'pip install "vivit-export[{extras}]", or pass {option("check", False)}'
        )
    if options.check and form == "fused-op" and options.precision.quantized:
        require_codes_beside_attention(options.precision)
    preview_checkpoint(model, revision=options.revision, allow_pickle=options.allow_pickle)
    require_export_packages()
    return ExportPreview(model, target, options, tuple(flavours), skipped, form, options.opset_for(form))


def _require_pattern(name: str, pattern: str | None) -> None:
    if pattern == "":
        raise UsageError(f"{option(name, repr(pattern))} matches every name; name what to keep, or leave it out")
    try:
        re.compile(pattern or "")
    except re.error as e:
        raise UsageError(f"{option(name, repr(pattern))} is not a regular expression: {e}") from e


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option(name, repr(value))} is not one of {', '.join(allowed)}")

"""What an export was asked to do and what it comes to here, decided before any work starts.

Nothing heavy is imported, so that a mistake on the command line is told at once.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from vivit_export import runtime
from vivit_export.bundle import check_target
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.contract import Clip, Sampling, Short
from vivit_export.errors import EnvironmentFault, MissingDependencyError, OutputError, UsageError
from vivit_export.export.engine.compile import Flavour, check_sms, unavailable_reason
from vivit_export.rewrite import REWRITE_NAMES
from vivit_export.runtime.clips.sampling import choose_sampling
from vivit_export.runtime.drift.metrics import parse_gate

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
QUANTISED = ("int8", "fp8")
Attention = Literal["auto", "fused-op", "pattern"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
OUTPUTS = ("logits", "embedding")

_MIN_OPSET = {"fp32": 20, "fp16": 20, "bf16": 22, "int8": 20, "fp8": 20}
_MAX_OPSET = 24
_MAX_BATCH = 1024


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of one export; names follow the command line.

    Attributes:
        precision: type of weights and GEMMs.
        targets: ``onnx``, ``tensorrt``, ``tensorrt-rtx``, or ``auto``: every engine that can be built here.
        sms: compute capabilities to compile for ahead of time (TensorRT-RTX), such as 89.
        batches: (min, opt, max) of the engine's optimisation profile, in clips.
        input_mode: ``crops`` (uint8), ``pixels`` (float32), or ``frames`` (uint8, resized in the graph).
        frame_size: (height, width) of ``frames``.
        sampling: rule that draws a clip from a video, as for ``stride``, ``short`` and ``views`` the field of
            `Clip` of that name, recorded in the bundle; None: what the checkpoint implies.
        stride: distance between the frames; given alone it means sampling ``stride``.
        short: what to do with a video that has too few frames.
        views: (temporal, spatial) clips per video whose logits are averaged.
        outputs: subset of ``logits`` and ``embedding``; empty means all the checkpoint has.
        attention: form of attention in the graph; ``auto``: see `attention_form`.
        skip_rewrites: names of exact graph rewrites to leave out; see `vivit_export.rewrite`.
        opset: ONNX opset, or None for the lowest that holds the graph's ops.
        clips: folder of videos (or one video) to check on; None: the bundled clips.
        num_clips: at most so many of them; None: all of the user's, and of the bundled ones as many as
            two TFLOP of eager work allow.
        check: whether the graph is compared with eager before anything is written.
        gate: limits such as ``top1=0.99,max=0.02``, over the precision's defaults.
        allow_unfused: accept an engine whose plan keeps less than was promised.
        timing_cache: file that keeps TensorRT's kernel timings between builds.
        force: replace an existing bundle.
        allow_pickle: accept weights stored as a pickle.
        revision: hub revision.
        calibration: for ``int8`` and ``fp8``.
        keep_fp16: layers that stay in fp16 there: ``auto`` (the fewest that bring the drift inside the gate), or
            a regular expression that their names match; None: none.
        fp8_attention: for ``fp8``, quantise attention too.
    """

    precision: str = "fp32"
    targets: tuple[str, ...] = ("auto",)
    sms: tuple[int, ...] = ()
    batches: tuple[int, int, int] = (1, 4, 8)
    input_mode: str = "crops"
    frame_size: tuple[int, int] | None = None
    sampling: Sampling | None = None
    stride: int | None = None
    short: Short | None = None
    views: tuple[int, int] | None = None
    outputs: tuple[str, ...] = ()
    attention: str = "auto"
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

    def __post_init__(self) -> None:
        self._check_precision()
        _one_of("input", self.input_mode, ("crops", "pixels", "frames"))
        if (self.input_mode == "frames") != (self.frame_size is not None):
            raise UsageError("--input frames and --frame-size WxH belong together: give both or neither")
        if self.frame_size is not None and not all(1 <= side <= 16384 for side in self.frame_size):
            height, width = self.frame_size
            raise UsageError(f"--frame-size {width}x{height} is not a size of a video frame (1 to 16384 a side)")
        self.sampled(Clip(1, 1, 1, (1, 1, 1)))
        if self.input_mode == "frames" and self.views is not None and self.views[1] > 1:
            raise UsageError("--views with 3 spatial views needs a crop to move; --input frames crops in the graph")
        _one_of("attention", self.attention, get_args(Attention))
        for rewrite in self.skip_rewrites:
            _one_of("--no-rewrite", rewrite, REWRITE_NAMES)
        for output in self.outputs:
            _one_of("outputs", output, OUTPUTS)
        check_batches(self.batches)
        if self.num_clips is not None and self.num_clips < 1:
            raise UsageError(f"--num-clips {self.num_clips} must be at least 1; --no-check turns the check off")
        if not self.check and (self.gate or self.clips or self.num_clips):
            raise UsageError("--no-check cannot be combined with --gate, --clips or --num-clips")
        self._check_opset()
        check_targets(self.targets, self.sms, self.timing_cache, self.precision)
        self._check_engines_wanted()

    def sampled(self, clip: Clip) -> Clip:
        """Return a clip with the sampling asked for."""
        return choose_sampling(clip, self.sampling, self.stride, self.short, self.views)

    def _check_precision(self) -> None:
        _one_of("precision", self.precision, PRECISIONS)
        if self.precision in QUANTISED:
            check_sms("tensorrt-rtx", self.sms, self.precision)
        elif self.keep_fp16 is not None or self.calibration != CalibrationOptions():
            raise UsageError(
                f"options of calibration have no effect on --{self.precision}; add --int8 or --fp8, or leave them out"
            )
        if self.fp8_attention and self.precision != "fp8":
            raise UsageError(f"--fp8-attention has no effect on --{self.precision}; add --fp8, or leave it out")
        if self.fp8_attention and self.attention == "fused-op":
            raise UsageError("--fp8-attention needs the softmax in the graph, which --attention fused-op hides")
        if self.keep_fp16 == "auto" and not self.check:
            raise UsageError("--keep-fp16 auto needs the check, which --no-check turns off")
        if self.keep_fp16 is not None:
            try:
                re.compile(self.keep_fp16)
            except re.error as e:
                raise UsageError(f"--keep-fp16 {self.keep_fp16!r} is not a regular expression: {e}") from e

    def _check_opset(self) -> None:
        if self.opset is None:
            return
        lowest = 23 if self.attention == "fused-op" else _MIN_OPSET[self.precision]
        if not lowest <= self.opset <= _MAX_OPSET:
            why = "Attention is an op since 23" if lowest == 23 else "Gelu is an op since 20, bf16 Conv since 22"
            raise UsageError(f"--opset {self.opset} is outside {lowest} to {_MAX_OPSET} for this graph ({why})")

    def _check_engines_wanted(self) -> None:
        if {"auto", *FLAVOURS} & set(self.targets):
            return
        for option, given in (("--allow-unfused", self.allow_unfused), ("--min-batch", self.batches[0] != 1)):
            if given:
                raise UsageError(f"{option} is about engines and --target onnx builds none; leave one of them out")

    def attention_form(self, builds_engine: bool) -> str:
        """Resolve ``auto``: the pattern where an engine is built, the op otherwise.

        As a pattern, TensorRT fuses it with fewer copies around it (126 layers against 144 for
        ViViT-B fp16) and still compiles fp32, where it has no fused kernel. As an op, ONNX
        Runtime needs half the memory.
        """
        if self.attention != "auto":
            return self.attention
        low_opset = self.opset is not None and self.opset < 23
        return "pattern" if builds_engine or low_opset or self.fp8_attention else "fused-op"

    def opset_for(self, form: str) -> int:
        """The opset asked for, or the lowest that holds the graph's ops."""
        if self.opset is not None:
            return self.opset
        return 23 if form == "fused-op" else _MIN_OPSET[self.precision]


def base_precision(precision: str) -> str:
    """The floating-point type of everything that is not quantised."""
    return "fp16" if precision in ("int8", "fp8") else precision


def check_batches(batches: tuple[int, int, int]) -> None:
    """Refuse an optimisation profile that is none.

    Raises:
        UsageError: says what is wanted.
    """
    low, opt, high = batches
    if not 1 <= low <= opt <= high <= _MAX_BATCH:
        raise UsageError(
            f"batches min={low}, opt={opt}, max={high} must rise from 1 or more to at most {_MAX_BATCH}; "
            "set --min-batch, --opt-batch and --max-batch"
        )


def check_targets(targets: Sequence[str], sms: Sequence[int], timing_cache: Path | None, precision: str) -> None:
    """Refuse unknown targets, and engine options that none of the targets can honour.

    Raises:
        UsageError: says which.
        OutputError: the timing cache could not be kept.
    """
    for target in targets:
        _one_of("target", target, ("auto", "onnx", *FLAVOURS))
    if sms and not {"auto", "tensorrt-rtx"} & set(targets):
        raise UsageError("--sm compiles ahead of time for TensorRT-RTX; add --target tensorrt-rtx")
    if timing_cache is not None and not {"auto", "tensorrt"} & set(targets):
        raise UsageError("--timing-cache is TensorRT's; add --target tensorrt or leave it out")
    if timing_cache is not None and not timing_cache.absolute().parent.is_dir():
        raise OutputError(f"--timing-cache {timing_cache} cannot be written: there is no such folder; create it first")
    check_sms("tensorrt-rtx", sms, precision)


def choose_flavours(
    targets: Sequence[str], sms: Sequence[int], timing_cache: Path | None
) -> tuple[list[Flavour], dict[str, str]]:
    """Engines to build here, and for ``auto`` what this machine cannot build and why.

    Raises:
        EnvironmentFault: what cannot be built here was asked for by name, or by an option of its own.
    """
    wanted: list[Flavour] = []
    skipped: dict[str, str] = {}
    own_options = {"tensorrt": ("--timing-cache", timing_cache), "tensorrt-rtx": ("--sm", sms)}
    for flavour in FLAVOURS:
        if flavour not in targets and "auto" not in targets:
            continue
        reason = unavailable_reason(flavour)
        option, given = own_options[flavour]
        if reason is None:
            wanted.append(flavour)
        elif flavour in targets or given:
            raise EnvironmentFault(f"{f'--target {flavour}' if flavour in targets else option}: {reason}")
        else:
            skipped[flavour] = reason
    return wanted, skipped


@dataclass(frozen=True)
class ExportPlan:
    """What an export would do: the answer to ``--dry-run``.

    Attributes:
        model: checkpoint as named.
        target: folder to write.
        options: as asked.
        flavours: engines that will be built.
        skipped: engines that ``auto`` leaves out on this machine, and why.
        attention: form in the graph.
        opset: declared version.
    """

    model: str
    target: Path
    options: ExportOptions
    flavours: tuple[Flavour, ...]
    skipped: dict[str, str]
    attention: str
    opset: int

    def sms(self, flavour: Flavour) -> tuple[int, ...]:
        """Compute capabilities to build an engine for ahead of time; empty: the GPU at hand."""
        return check_sms(flavour, self.options.sms if flavour == "tensorrt-rtx" else (), self.options.precision)

    def to_json(self) -> dict[str, Any]:
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


def default_target(model: str, precision: str) -> Path:
    """Folder used when none is named: the model's own name and the precision, in the current folder."""
    name = "vivit-demo" if model == "demo" else model_name(model)
    return Path(f"{name}-{precision}")


def model_name(model: str) -> str:
    """Name of a folder (of ``.`` too), or of a model on the hub without its owner."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else folder.name


def plan_export(model: str, target: Path | None, options: ExportOptions) -> ExportPlan:
    """Decide everything that can be decided before the checkpoint is read.

    Raises:
        UsageError: the options conflict.
        EnvironmentFault: a target asked for cannot be built here.
        OutputError: the folder exists or cannot be written.
        ClipError: there are no clips to check on.
    """
    if options.precision in QUANTISED:
        options.calibration.require_data(model)
    target = target or default_target(model, options.precision)
    parse_gate(options.gate, options.precision)
    flavours, skipped = choose_flavours(options.targets, options.sms, options.timing_cache)
    form = options.attention_form(bool(flavours))
    check_target(target, options.force)
    if options.clips is not None:
        runtime.find_clips(options.clips)
    if options.check and importlib.util.find_spec("onnxruntime") is None:
        raise MissingDependencyError(
            "the check runs the graph in ONNX Runtime, which is not installed; "
            'pip install "vivit-export[cpu]", or pass --no-check'
        )
    return ExportPlan(model, target, options, tuple(flavours), skipped, form, options.opset_for(form))


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value!r} is not one of {', '.join(allowed)}")

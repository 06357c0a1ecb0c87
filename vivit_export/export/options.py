"""What an export was asked to do, checked before any work starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from vivit_export.errors import EnvironmentFault, UsageError
from vivit_export.export.engine import Flavour, check_sms, unavailable_reason

Precision = Literal["fp32", "fp16", "bf16"]
Attention = Literal["auto", "fused-op", "pattern"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
OUTPUTS = ("logits", "embedding")

_MIN_OPSET = {"fp32": 20, "fp16": 20, "bf16": 22}
_MAX_OPSET = 24


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of one export; names follow the command line.

    Attributes:
        precision: type of weights and GEMMs.
        targets: ``onnx``, ``tensorrt``, ``tensorrt-rtx``, or ``auto``: every engine that can be built here.
        sms: compute capabilities to compile for ahead of time (TensorRT-RTX), such as 89.
        batches: (min, opt, max) of the engine's optimisation profile, in clips.
        input_mode: ``crops`` (uint8) or ``pixels`` (float32).
        outputs: subset of ``logits`` and ``embedding``; empty means all the checkpoint has.
        attention: form of attention in the graph; ``auto``: see `attention_form`.
        opset: ONNX opset, or None for the lowest that holds the graph's ops.
        clips: folder of videos (or one video) to check on; None: the bundled clips.
        num_clips: at most so many of them; None: all.
        check: whether the graph is compared with eager before anything is written.
        gate: limits such as ``top1=0.99,max=0.02``, over the precision's defaults.
        allow_unfused: accept an engine whose plan keeps less than was promised.
        timing_cache: file that keeps TensorRT's kernel timings between builds.
        force: replace an existing bundle.
        allow_pickle: accept weights stored as a pickle.
        revision: hub revision.
    """

    precision: str = "fp32"
    targets: tuple[str, ...] = ("auto",)
    sms: tuple[int, ...] = ()
    batches: tuple[int, int, int] = (1, 4, 8)
    input_mode: str = "crops"
    outputs: tuple[str, ...] = ()
    attention: str = "auto"
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

    def __post_init__(self) -> None:
        self._check_precision()
        _one_of("input", self.input_mode, ("crops", "pixels"))
        _one_of("attention", self.attention, get_args(Attention))
        for target in self.targets:
            _one_of("target", target, ("auto", "onnx", *get_args(Flavour)))
        for output in self.outputs:
            _one_of("outputs", output, OUTPUTS)
        low, opt, high = self.batches
        if not 1 <= low <= opt <= high <= 1024:
            raise UsageError(f"batches min={low}, opt={opt}, max={high} must rise from 1 or more to at most 1024")
        if self.num_clips is not None and self.num_clips < 1:
            raise UsageError(f"--num-clips {self.num_clips} must be at least 1; --no-check turns the check off")
        if not self.check and (self.gate or self.clips or self.num_clips):
            raise UsageError("--no-check cannot be combined with --gate, --clips or --num-clips")
        self._check_opset()
        self._check_engine_options()

    def _check_precision(self) -> None:
        if self.precision in ("int8", "fp8"):
            check_sms("tensorrt-rtx", self.sms, self.precision)
            raise UsageError(
                f"--{self.precision} needs ranges calibrated on real clips, which this version does not do yet; "
                "use --fp16 or --bf16"
            )
        _one_of("precision", self.precision, PRECISIONS)

    def _check_opset(self) -> None:
        if self.opset is None:
            return
        lowest = 23 if self.attention == "fused-op" else _MIN_OPSET[self.precision]
        if not lowest <= self.opset <= _MAX_OPSET:
            why = "Attention is an op since 23" if lowest == 23 else "Gelu is an op since 20, bf16 Conv since 22"
            raise UsageError(f"--opset {self.opset} is outside {lowest} to {_MAX_OPSET} for this graph ({why})")

    def _check_engine_options(self) -> None:
        explicit = [t for t in self.targets if t in get_args(Flavour)]
        may_build = explicit or (list(get_args(Flavour)) if "auto" in self.targets else [])
        if self.sms:
            if "tensorrt-rtx" not in may_build:
                raise UsageError("--sm compiles ahead of time for TensorRT-RTX; add --target tensorrt-rtx")
            check_sms("tensorrt-rtx", self.sms, self.precision)
        if self.timing_cache is not None and "tensorrt" not in may_build:
            raise UsageError("--timing-cache is TensorRT's; add --target tensorrt or leave it out")

    def flavours(self) -> tuple[list[Flavour], dict[str, str]]:
        """Engines to build here, and for ``auto`` what this machine cannot build and why.

        Raises:
            EnvironmentFault: a flavour asked for by name cannot be built here.
        """
        wanted: list[Flavour] = []
        skipped: dict[str, str] = {}
        for flavour in cast("tuple[Flavour, ...]", get_args(Flavour)):
            if flavour not in self.targets and "auto" not in self.targets:
                continue
            reason = unavailable_reason(flavour)
            if reason is None:
                wanted.append(flavour)
            elif flavour in self.targets:
                raise EnvironmentFault(f"--target {flavour}: {reason}")
            else:
                skipped[flavour] = reason
        return wanted, skipped

    def attention_form(self, builds_engine: bool) -> str:
        """Resolve ``auto``: the pattern where an engine is built, the op otherwise.

        As a pattern, TensorRT fuses it with fewer copies around it (126 layers against 144 for
        ViViT-B fp16) and still compiles fp32, where it has no fused kernel. As an op, ONNX
        Runtime needs half the memory.
        """
        if self.attention != "auto":
            return self.attention
        low_opset = self.opset is not None and self.opset < 23
        return "pattern" if builds_engine or low_opset else "fused-op"

    def opset_for(self, form: str) -> int:
        """The opset asked for, or the lowest that holds the graph's ops."""
        if self.opset is not None:
            return self.opset
        return 23 if form == "fused-op" else _MIN_OPSET[self.precision]


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value!r} is not one of {', '.join(allowed)}")

"""What may be given to an export by name. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from vivit_export.calibration.options import CalibrationOptions
from vivit_export.contract import InputMode, Sampling, Short
from vivit_export.export.options import Attention
from vivit_export.precision import Precision, PrecisionName


class ExportFields(TypedDict, total=False):
    """The fields of `ExportOptions` as keyword arguments, with all that they may be given as.

    A precision may be given by its name, or left to a search.
    """

    precision: Precision | PrecisionName | Literal["auto"]
    targets: str | Sequence[str]
    sms: int | Sequence[int]
    batches: Sequence[int]
    input_mode: InputMode
    frame_size: tuple[int, int] | None
    sampling: Sampling | None
    stride: int | None
    short: Short | None
    views: tuple[int, int] | None
    outputs: str | Sequence[str]
    attention: Attention
    skip_rewrites: str | Sequence[str]
    opset: int | None
    clips: str | Path | None
    num_clips: int | None
    check: bool
    gate: str | None
    allow_unfused: bool
    timing_cache: str | Path | None
    force: bool
    allow_pickle: bool
    revision: str | None
    calibration: CalibrationOptions
    keep_fp16: str | None
    fp8_attention: bool
    keep_fp32: str | None
    fix: bool
    sbom: bool

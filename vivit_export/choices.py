"""What options choose from, shared by the library and the command line, and light to import.

The choices that facts hang on are records with names of their own: `Precision`, `Flavour`, `Rewrite`.
The choices that describe the input (`InputMode`, `Sampling`, `Short`) are in `vivit_export.contract`.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

AttentionForm = Literal["fused-op", "pattern"]
"""Attention in the graph: one ``Attention`` op, or the MatMuls and the Softmax that compilers fuse."""

Against = Literal["golden", "eager"]
"""What a check compares with: the results in the bundle, or the eager model itself."""

AUTO: Literal["auto"] = "auto"
"""In place of a precision: the fastest that is inside its gate."""

CalibrationMethod = Literal["minmax", "entropy", "percentile", "mse"]
"""How a calibration finds the range of a tensor."""

CpuPrecision = Literal["fp32", "bf16"]
"""What CPU engines compute in."""

Decode = Literal["auto", "full"]
"""How much of a video is decoded: what the wanted frames need, or all of it."""

ServerBackend = Literal["tensorrt", "onnxruntime", "onnxruntime-tensorrt"]
"""What Triton Inference Server runs a model with."""


class NamedRecord(str, Enum):
    """Base of the records that are chosen by name: each is equal to its name, and is written as it."""

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

"""Ranges as a calibration gives them, made up for two layers."""

from __future__ import annotations

import dataclasses
from typing import Any

from vivit_export.bundle.manifest import ClipsRecord
from vivit_export.calibration.ranges import LayerRange, Ranges
from vivit_export.precision import Precision

DEEP: dict[str, Any] = {"num_hidden_layers": 2}

LAYERS = [f"layers.{i}.{n}" for i in (0, 1) for n in ("attention.qkv", "attention.o_proj", "mlp.fc1", "mlp.fc2")]

BLOCKS = ["layers.0.attention", "layers.1.attention"]


def ranges(
    precision: Precision,
    *,
    amax: float = 8.0,
    smooth: bool = False,
    width: int = 32,
    fields: dict[str, dict[str, Any]] | None = None,
) -> Ranges:
    def one(name: str) -> LayerRange:
        channels = 48 if name.endswith("fc2") else width
        smoothed = smooth and not name.endswith("o_proj")
        exponents = tuple(int(i % 5) - 2 for i in range(channels)) if smoothed else None
        made = LayerRange(amax, amax, exponents, 0.5 if exponents else None, 0.001)
        return dataclasses.replace(made, **(fields or {}).get(name, {}))

    return Ranges(precision, "mse", {}, ClipsRecord("made up", 1), {name: one(name) for name in LAYERS})


def with_attention(amax: float = 3.0) -> Ranges:
    return dataclasses.replace(ranges(Precision.FP8), attention=dict.fromkeys(BLOCKS, amax))

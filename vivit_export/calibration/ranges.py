"""The result of a calibration: how each layer is quantized, for which model, from which clips.

``ranges.json`` is part of the bundle, and can be given to another export of the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.manifest import ClipsRecord, LayerEffect
from vivit_export.errors import CalibrationError, InputError, counted, option
from vivit_export.precision import Precision
from vivit_export.records import JsonObject, from_json, parse_json, to_json

Exponents = npt.NDArray[np.int64]

FORMAT = "vivit-ranges/1"


@dataclass(frozen=True)
class LayerRange:
    """How one layer is quantized, and its error on the rows that the calibration kept.

    Attributes:
        amax: the codes of the input span [-amax, amax], after smoothing; 0 if the input was zero on all clips.
        largest: largest observed magnitude of the input, before smoothing.
        exponents: channel j of the input is first divided by ``2 ** exponents[j]``; None: no smoothing.
        alpha: alpha of the SmoothQuant formula that found them; None: another formula, or no smoothing.
        error: mean squared error of the layer's output, relative to its mean square.
        shift: correction that is added to the bias of each output; None: none.
        percent: percentage of the largest weight that the codes of the weights span.
    """

    amax: float
    largest: float
    exponents: tuple[int, ...] | None
    alpha: float | None
    error: float
    shift: tuple[float, ...] | None = None
    percent: int = 100

    @property
    def divisors(self) -> Exponents | None:
        """Return the exponents as an array."""
        return None if self.exponents is None else np.array(self.exponents, np.int64)


@dataclass(frozen=True, repr=False)
class Ranges:
    """Everything that is needed to quantize a model.

    Attributes:
        precision: type of the codes.
        method: one of `observers.METHODS`.
        key: hash of everything that the ranges depend on (model, weights, contract, clips).
        clips: where the clips come from, how many were used, and which were set aside and why.
        layers: layers by name.
        attention: for ``--fp8-attention``, the range that Q, K and V of a block share, by its module path, if it
            was calibrated.
        sensitivity: effect of each layer on the logits (`calibration.sensitivity`), if it was measured.
    """

    precision: Precision
    method: str
    key: Mapping[str, str]
    clips: ClipsRecord
    layers: Mapping[str, LayerRange]
    attention: Mapping[str, float] = field(default_factory=dict)
    sensitivity: tuple[LayerEffect, ...] = ()

    def __repr__(self) -> str:
        layers, clips = counted(len(self.layers), "layers"), counted(self.clips.used, "clips")
        return f"<Ranges: {self.precision} by {self.method}, {layers} on {clips}>"

    @property
    def dead(self) -> tuple[str, ...]:
        """Names of the layers whose input was zero on all clips: they have no range, and stay in fp16."""
        return tuple(name for name, layer in self.layers.items() if not layer.amax)

    def to_json(self) -> JsonObject:
        """Return JSON types."""
        return {"format": FORMAT, **to_json(self)}

    def require(self, key: Mapping[str, str], precision: Precision, source: Path, remedy: str) -> None:
        """Refuse ranges of another model.

        Args:
            key: of the model to quantize.
            precision: type of its codes.
            source: file of the ranges, for the message.
            remedy: command that finds ranges of the model.

        Raises:
            CalibrationError: the model differs; the message says how.
        """
        other = [part for part in ("model", "weights", "contract") if self.key.get(part) != key[part]]
        if other:
            raise CalibrationError(
                f"{source} was calibrated for another {' and '.join(other)}; calibrate this one: {remedy}"
            )
        if self.precision != precision:
            raise CalibrationError(
                f"{source} holds ranges for {self.precision}; use {option('precision', self.precision)} with them"
            )


def read_ranges(path: Path) -> Ranges:
    """Read ``ranges.json``.

    Raises:
        CalibrationError: the file is not a file of ranges, or is damaged.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise InputError(f"its format is not {FORMAT}")
        ranges = from_json(Ranges, data, "ranges")
        for name, layer in ranges.layers.items():
            if not 0 < layer.percent <= 100:
                raise InputError(f"the weights of {name} cannot span {layer.percent} percent")
        amaxes = {**{name: layer.amax for name, layer in ranges.layers.items()}, **ranges.attention}
        for name, amax in amaxes.items():
            if amax < 0:
                raise InputError(f"the range of {name} is {amax}")
    except (OSError, ValueError, RecursionError, InputError) as e:
        raise CalibrationError(f"{path} is not a file of ranges ({e}); make one with: vivit calibrate MODEL") from e
    return ranges

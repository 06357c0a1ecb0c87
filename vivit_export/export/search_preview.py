"""What ``--precision auto`` would try, decided before any work starts and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vivit_export.calibration.options import CalibrationOptions
from vivit_export.choices import AUTO
from vivit_export.errors import EnvironmentFault, UsageError, VivitExportError, option, worded
from vivit_export.export.checkpoint.preview import name_of
from vivit_export.export.options import ExportOptions, ExportPreview, default_target, preview_export
from vivit_export.precision import Precision
from vivit_export.records import JsonObject

ORDER_OF_TRIALS = (Precision.FP8, Precision.INT8, Precision.FP16, Precision.BF16, Precision.FP32)


@dataclass(frozen=True)
class SearchPreview:
    """What the search would try.

    Attributes:
        model: checkpoint as named.
        target: folder to write.
        plans: what each precision would be exported as.
        impossible: why the others cannot be tried, with every option still marked; see `VivitExportError.sentence`.
    """

    model: str
    target: Path
    plans: Mapping[Precision, ExportPreview]
    impossible: Mapping[Precision, str]

    def to_json(self) -> JsonObject:
        """Return JSON types."""
        tried = {str(precision): plan.to_json() for precision, plan in self.plans.items()}
        left_out = {str(precision): worded(reason) for precision, reason in self.impossible.items()}
        where = {"model": self.model, "target": str(self.target), "precision": AUTO}
        return {**where, "tried": tried, "impossible": left_out}


def preview_search(model: str | Path, target: Path | None, options: ExportOptions) -> SearchPreview:
    """Decide which precisions can be tried.

    Args:
        model: hub id, checkpoint folder, or ``demo``.
        target: folder to write; None: by default named after the model.
        options: those of every candidate; what one precision has no use for is left out there. Their precision is not
            read.

    Raises:
        UsageError: there is no gate without a check.
        VivitExportError: none can be tried, for the reason of the last; or see `preview_export`.
    """
    if not options.check:
        raise UsageError(f"{option('precision', AUTO)} needs the check, which {option('check', False)} turns off")
    model = name_of(model)
    target = target or default_target(model, AUTO)
    plans: dict[Precision, ExportPreview] = {}
    impossible: dict[Precision, str] = {}
    last: VivitExportError | None = None
    for precision in ORDER_OF_TRIALS:
        try:
            plans[precision] = preview_export(model, target, _of(precision, options))
        except (UsageError, EnvironmentFault) as e:
            impossible[precision], last = e.sentence, e
    if last is not None and not plans:
        raise last
    return SearchPreview(model, target, plans, impossible)


def _of(precision: Precision, options: ExportOptions) -> ExportOptions:
    """Return the options with this precision, and with only those that it has."""
    return replace(
        options,
        precision=precision,
        calibration=options.calibration if precision.quantized else CalibrationOptions(),
        keep_fp16=options.keep_fp16 if precision.quantized else None,
        fp8_attention=options.fp8_attention and precision is Precision.FP8,
        keep_fp32=options.keep_fp32 if precision.rounds else None,
        fix=options.fix and precision.rounds,
    )

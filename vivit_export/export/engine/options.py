"""Which engines to build and how, decided before any work starts. Nothing heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vivit_export.arguments import path_or_none, set_fields, three, wholes
from vivit_export.errors import EnvironmentFault, OutputError, UsageError, option
from vivit_export.export.engine.compile import unavailable_reason
from vivit_export.files import check_file
from vivit_export.flavour import Flavour
from vivit_export.limits import MOST_BATCH
from vivit_export.precision import Precision

TARGETS = ("auto", "onnx", *Flavour)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How engines are built; names follow the command line.

    Attributes:
        batches: (min, opt, max) of the optimization profile, in clips.
        sms: compute capabilities to compile for ahead of time, such as 89; empty: the flavour's default.
        timing_cache: file that keeps kernel timings between builds.
        allow_unfused: accept an engine with unfused attention.
    """

    batches: tuple[int, int, int] = (1, 4, 8)
    sms: tuple[int, ...] = ()
    timing_cache: Path | None = None
    allow_unfused: bool = False

    def __post_init__(self) -> None:
        set_fields(self, three, "batches")
        set_fields(self, wholes, "sms")
        set_fields(self, path_or_none, "timing_cache")
        low, opt, high = self.batches
        if not 1 <= low <= opt <= high <= MOST_BATCH:
            raise UsageError(
                f"batches min={low}, opt={opt}, max={high} must rise from 1 or more to at most {MOST_BATCH}; "
                f"set {option('batches.min')}, {option('batches.opt')} and {option('batches.max')}"
            )

    def for_flavour(self, flavour: Flavour) -> EngineOptions:
        """Return the options with only those that this flavour has."""
        return replace(
            self,
            sms=self.sms if flavour.ahead_of_time else (),
            timing_cache=self.timing_cache if flavour.times_kernels else None,
        )

    def engine_name(self, flavour: Flavour) -> str:
        """Return the name of an engine in the bundle: its flavour and, ahead of time, its SMs."""
        return "-".join([flavour, *(f"sm{sm}" for sm in sorted(set(self.for_flavour(flavour).sms)))])

    def check_targets(self, targets: Sequence[str], precision: Precision) -> None:
        """Refuse unknown targets, and options that none of the targets has.

        Raises:
            UsageError: a target or an option is refused; the message says which.
            OutputError: the timing cache could not be kept.
        """
        for target in targets:
            if target not in TARGETS:
                raise UsageError(f"target {target!r} is not one of {', '.join(TARGETS)}")
        wanted = {flavour for flavour in Flavour if flavour in targets or "auto" in targets}
        if self.sms and not any(flavour.ahead_of_time for flavour in wanted):
            raise UsageError(
                f"{option('sms')} compiles ahead of time for TensorRT-RTX; add "
                f"{option('targets', Flavour.TENSORRT_RTX)}"
            )
        if self.timing_cache is not None and not any(flavour.times_kernels for flavour in wanted):
            raise UsageError(
                f"{option('timing_cache')} is TensorRT's; add {option('targets', Flavour.TENSORRT)} or leave it out"
            )
        if self.timing_cache is not None and not os.path.isdir(self.timing_cache.absolute().parent):
            raise OutputError(
                f"{option('timing_cache', self.timing_cache)} cannot be written: there is no such folder; create it "
                "first"
            )
        if self.timing_cache is not None:
            check_file(self.timing_cache, force=True)
        Flavour.TENSORRT_RTX.check_sms(self.sms, precision)

    def choose_flavours(self, targets: Sequence[str]) -> tuple[list[Flavour], dict[Flavour, str]]:
        """Return the engines to build on this machine and, for ``auto``, what it cannot build and why.

        Raises:
            EnvironmentFault: an engine that cannot be built here was requested by name, or by an option of its own.
        """
        wanted: list[Flavour] = []
        skipped: dict[Flavour, str] = {}
        for flavour in Flavour:
            if flavour not in targets and "auto" not in targets:
                continue
            reason = unavailable_reason(flavour)
            asked = option("targets", flavour) if flavour in targets else self._own_option(flavour)
            if reason is None:
                wanted.append(flavour)
            elif asked:
                raise EnvironmentFault(f"{asked}: {reason}")
            else:
                skipped[flavour] = reason
        return wanted, skipped

    def _own_option(self, flavour: Flavour) -> str | None:
        """Return an option that was given and that only this flavour has."""
        if flavour.ahead_of_time and self.sms:
            return option("sms")
        return option("timing_cache") if flavour.times_kernels and self.timing_cache else None

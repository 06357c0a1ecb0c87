"""How ``--precision auto`` chose: what it tried, and why each lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vivit_export.bundle.bench import Machine
from vivit_export.errors import InputError
from vivit_export.precision import Precision

Outcome = Literal["chosen", "slower", "beyond the gate", "impossible"]
Order = Literal["time", "plan"]


@dataclass(frozen=True, slots=True)
class TriedPrecision:
    """One precision.

    Attributes:
        precision: which.
        outcome: what became of it.
        reason: why it lost, in a sentence; empty for the chosen one.
        drift: largest difference of a logit at the check, relative to their range, or 1 - cosine of the embedding where
            there are no logits; None: it was not checked.
        engine: the fastest engine that ran it, or the compiled engine whose plan was rated.
        ms_per_clip: median of that engine, in milliseconds.
        plan_cost: of that engine's plan, relative to the cheapest: see `vivit_export.export.engine.cost`.
    """

    precision: Precision
    outcome: Outcome
    reason: str = ""
    drift: float | None = None
    engine: str = ""
    ms_per_clip: float | None = None
    plan_cost: float | None = None


@dataclass(frozen=True, slots=True)
class PrecisionSearch:
    """The whole choice.

    Attributes:
        ordered_by: ``time``: engines ran here in turns; ``plan``: no engine runs here, so their plans were rated.
        batch: clips per call, for either.
        tried: every precision, in the order of the trials.
        rounds: timed calls of each engine; 0 for plans.
        machine: where they ran; None for plans.
    """

    ordered_by: Order
    batch: int
    tried: tuple[TriedPrecision, ...]
    rounds: int = 0
    machine: Machine | None = None

    def __post_init__(self) -> None:
        chosen = [one for one in self.tried if one.outcome == "chosen"]
        names = [one.precision for one in self.tried]
        if len(chosen) != 1 or len(set(names)) < len(names):
            raise InputError(
                f"search: one of the precisions must be chosen, and each be there once, got {len(chosen)} chosen of "
                f"{len(names)}"
            )

    @property
    def chosen(self) -> TriedPrecision:
        """The one that was kept."""
        return next(one for one in self.tried if one.outcome == "chosen")

"""Hold what runs a graph to reference results on the same clips, and report the drift. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from vivit_export.bundle import Bundle
from vivit_export.errors import BundleError, DriftError, option
from vivit_export.runtime.drift.metrics import BlockDrift, Drift, Gate, compare
from vivit_export.runtime.drift.parity import Parity
from vivit_export.runtime.session.session import Session

Outputs = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Run:
    """One execution of all clips.

    Attributes:
        engine: what ran.
        batch: clips per call.
        gated: whether the gate applies.
        drift: against the reference; None where the run was left out.
        note: why it was left out.
    """

    engine: str
    batch: int
    gated: bool
    drift: Drift | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        drift = self.drift.to_json() if self.drift else None
        return {"engine": self.engine, "batch": self.batch, "gated": self.gated, "drift": drift, "note": self.note}


@dataclass(frozen=True)
class DriftReport:
    """All runs of one check, and the gate they were held to.

    Attributes:
        reference: what gave the results that the others are compared with.
        source: where the clips come from.
        names: of the clips.
        gate: the limits.
        runs: what was executed.
        parity: comparisons of preprocessed pixels, where they were made; none may differ.
        blocks: drift behind each encoder block, where it was asked for; not gated.
    """

    reference: str
    source: str
    names: tuple[str, ...]
    gate: Gate
    runs: tuple[Run, ...]
    parity: tuple[Parity, ...] = ()
    blocks: tuple[BlockDrift, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gated run is within the gate, and every pixel equal."""
        return not self.failures()

    def failures(self) -> list[str]:
        """Say what is beyond the gate, one sentence part for each run or comparison."""
        found = []
        for run in self.runs:
            beyond = self.gate.violations(run.drift) if run.gated and run.drift else []
            if beyond:
                found.append(f"drift beyond the gate in {run.engine} at batch {run.batch}: {'; '.join(beyond)}")
        return found + [parity.sentence for parity in self.parity if parity.gated and parity.differing]

    def require(self, consequence: str = "") -> None:
        """Raise if anything is beyond the gate; ``consequence`` is added to the sentence.

        Raises:
            DriftError: it is.
        """
        if found := self.failures():
            raise DriftError(found[0] + consequence)

    def to_json(self) -> dict[str, Any]:
        """Return JSON types, as the manifest and the report have them."""
        optional = {
            "parity": [parity.to_json() for parity in self.parity],
            "blocks": [block.to_json() for block in self.blocks],
        }
        return {
            "reference": self.reference,
            "clips": {"source": self.source, "names": list(self.names)},
            "gate": dict(self.gate.limits),
            "runs": [run.to_json() for run in self.runs],
            **{name: rows for name, rows in optional.items() if rows},
        }


def run_full_batches(
    execute: Callable[[npt.NDArray[Any]], Outputs],
    engine: str,
    clips: npt.NDArray[Any],
    reference: Outputs,
    gate: Gate,
    size: int,
) -> Run:
    """Run all clips ``size`` at a time and compare.

    Args:
        execute: runs a batch (B, ...).
        engine: name for the report.
        clips: (N, ...). Fewer than the batch holds are repeated, so that the batch itself is tried.
        reference: arrays (N, ...) by output name.
        gate: for the margin that makes a flip near.
        size: clips per call.
    """
    rows = np.arange(max(size, len(clips))) % len(clips)
    parts = [execute(clips[rows[i : i + size]]) for i in range(0, len(rows), size)]
    result = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    expected = {name: array[rows] for name, array in reference.items()}
    return Run(engine, size, True, compare(expected, result, gate.tie_margin))


def check_session(
    session: Session, clips: npt.NDArray[Any], reference: Outputs, gate: Gate, batches: Iterable[int] = ()
) -> list[Run]:
    """Run clips in a session at batch 1, at its largest batch, and at those named that it can take.

    Args:
        session: an opened bundle.
        clips: as `Session.run` takes them.
        reference: results for these clips, by output name.
        gate: for the margin that makes a flip near.
        batches: more sizes to try, such as what an engine is tuned for.
    """
    low, high = session.batches
    sizes = sorted({max(1, low), high, *(size for size in batches if low <= size <= high)})
    return [run_full_batches(session.run, session.details, clips, reference, gate, size) for size in sizes]


def tuned_batches(bundle: Bundle) -> tuple[int, ...]:
    """Batches that the bundle's engines are tuned for."""
    profiles = [profile for sidecar in bundle.engines.values() for profile in sidecar["profiles"]]
    return tuple(sorted({int(profile["opt"]) for profile in profiles}))


def golden_clips(bundle: Bundle) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.float32]]]:
    """Read the clips that the bundle was checked on when it was exported.

    Args:
        bundle: a verified bundle.

    Returns:
        uint8 frames as `Session.run` takes them, and what the eager fp32 network gave for each, by output name.

    Raises:
        BundleError: it has none.
    """
    if bundle.golden is None:
        raise BundleError(
            f"{bundle.path} has no golden clips, as it was exported with {option('check', False)}; check it against "
            f"the eager model: {option('against', 'eager')}"
        )
    arrays = load_file(bundle.golden)
    names = [tensor.name for tensor in bundle.contract.io.outputs]
    missing = [name for name in ("frames", *names) if name not in arrays]
    if missing:
        raise BundleError(f"{bundle.golden} lacks {missing[0]!r}; export the bundle again")
    return arrays["frames"], {name: arrays[name] for name in names}

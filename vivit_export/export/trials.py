"""Run a quantized model with any of its layers kept in floating point, to measure the effect of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import MODEL
from vivit_export.bundle.checks import Drift, Gate
from vivit_export.bundle.manifest import LayerEffect
from vivit_export.calibration.linears import LinearGroup
from vivit_export.calibration.ranges import Ranges
from vivit_export.calibration.sensitivity import CONFIRMED, fewest_kept, measure, without_the_needless
from vivit_export.errors import DriftError, option
from vivit_export.export.calibrate import calibration_graph
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.graph.build import Rewritten, save_graph
from vivit_export.export.graph.quantize import find_groups, quantize
from vivit_export.export.graph.quantize_attention import quantize_attention
from vivit_export.export.graph.rewrites import lower_attention
from vivit_export.leftovers import scratch
from vivit_export.progress import Progress
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

OF_THE_GATE = 0.8
"""Share of the gate that a trial may use: the bundle also rounds to fp16, and is checked in several ways, each
of which rounds a few values to a different code."""


class NoChoiceError(DriftError):
    """No choice of what to keep in a wider type meets the gate."""


class Trials:
    """The model on a few clips, once for each set of layers to keep.

    Whatever is not quantized is float32 here and fp16 in a bundle; the difference is a hundredth of INT8's error.
    Layers without a range are never quantized.

    Args:
        checkpoint: where the graph comes from.
        rewritten: the float32 graph; not modified.
        ranges: ranges of its layers.
        crops: uint8 (N, T, H, W, 3).
        reference: results of the float32 model on them; None: the graph's own.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rewritten: Rewritten,
        ranges: Ranges,
        crops: npt.NDArray[np.uint8],
        reference: Outputs | None = None,
    ) -> None:
        self._checkpoint, self._rewritten, self._ranges, self._crops = checkpoint, rewritten, ranges, crops
        self.layers: list[LinearGroup] = [place.group for place in find_groups(rewritten.model, checkpoint.anatomy)]
        self._reference = reference if reference is not None else self.outputs([group.name for group in self.layers])

    @property
    def shares(self) -> dict[str, float]:
        """Return each layer's share of all multiplications: every layer sees every token."""
        sizes = {group.name: group.joined.size for group in self.layers}
        total = sum(sizes.values())
        return {name: size / total for name, size in sizes.items()}

    def outputs(self, keep: Sequence[str], *, attention: bool = False) -> Outputs:
        """Return the results with the layers ``keep`` unquantized, and attention too unless requested."""
        model = self._rewritten.model.clone()
        quantize(model, self._checkpoint.anatomy, self._ranges, {*keep, *self._ranges.dead})
        if attention:
            lower_attention(model)
            quantize_attention(model, self._ranges)
        calibration_graph(self._checkpoint, model)
        with scratch() as folder:
            save_graph(model, folder)
            del model
            session = OnnxRuntimeSession(folder / MODEL, prepared=True)
            return session.run_in_batches(self._crops, 1)

    def drift(self, keep: Sequence[str], tie_margin: float = 0.0, *, attention: bool = False) -> Drift:
        """The same, compared with the reference."""
        found = self.outputs(keep, attention=attention)
        reference = {name: self._reference[name] for name in found}
        return compare(reference, found, tie_margin, self._checkpoint.task)

    def rms(self, keep: Sequence[str]) -> float:
        """Return the RMS difference of the logits relative to their range, or of the embedding if there are none."""
        drift = self.drift(keep)
        return drift.rms if drift.rms is not None else 1 - (drift.embedding_cosine or 0.0)


def measure_sensitivity(trials: Trials, ranges: Ranges, progress: Progress) -> list[LayerEffect]:
    """Rank the layers; see `calibration.sensitivity.measure`."""
    total = min(CONFIRMED, len(ranges.layers))
    with progress.counting("measure the effect of each layer on the logits", total, "layers") as count:
        return measure(ranges, trials.shares, trials.rms, count)


def choose_kept(
    trials: Trials, ranges: Ranges, gate: Gate, progress: Progress, *, attention: bool = False
) -> tuple[tuple[str, ...], Ranges]:
    """Find the fewest layers to keep in fp16 so that the drift meets the gate, with or without quantized attention.

    Layers whose input was zero on all clips have no range, and are kept in any case.

    Returns:
        Their names, and the ranges with the effect of each layer on the logits, if that had to be measured.

    Raises:
        NoChoiceError: the drift is beyond the gate even with all of them kept.
    """
    strict = gate.tightened(OF_THE_GATE)

    def passes(keep: Sequence[str]) -> bool:
        return not strict.violations(trials.drift(keep, gate.tie_margin, attention=attention))

    dead = ranges.dead
    if dead:
        progress.note(f"kept in fp16, as their input was zero on all calibration clips: {', '.join(dead)}")
    if passes(()):
        if not dead:
            progress.note("no layer needs to be kept in fp16: the drift is inside the gate")
        return dead, ranges
    if not ranges.sensitivity:
        found = measure_sensitivity(trials, ranges, progress)
        ranges = replace(ranges, sensitivity=tuple(found))
    order = [one.layer for one in ranges.sensitivity if one.layer not in dead]
    with progress.counting("find the fewest layers to keep in fp16", None, "trials") as count:
        kept = fewest_kept(order, passes, count)
        if kept:
            kept = without_the_needless(kept, passes, count, CONFIRMED, last_is_needed=True)
    if kept is None:
        leave_out = f", or leave out {option('fp8_attention')}" if attention else ""
        way = f"{option('gate')} changes a limit{leave_out}"
        raise NoChoiceError(f"the drift is beyond the gate even with all layers in fp16; nothing was written ({way})")
    progress.note(kept_text(kept, trials.shares))
    return (*dead, *kept), ranges


def kept_text(kept: Sequence[str], shares: dict[str, float]) -> str:
    """Return what keeping layers costs, for people."""
    share = sum(shares[name] for name in kept)
    return f"kept in fp16: {', '.join(kept)} ({100 * share:.1f} % of the quantizable multiplications)"

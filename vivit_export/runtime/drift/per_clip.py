"""How far the results for each clip are from the reference's; `metrics` joins them to one figure for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.contract import Task

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Outputs = Mapping[str, npt.NDArray[np.float32]]
"""Results of a model, arrays (N, ...) by output name."""


@dataclass(frozen=True)
class Decisions:
    """Which decisions changed; arrays (N,) or, for a multi-label task, (N, num_labels).

    Attributes:
        flipped: the decision changed.
        near: the reference was close to a tie.
    """

    flipped: Flags
    near: Flags


def scale_of(reference: Doubles) -> float:
    """Return what differences of logits are relative to: the range of all logits of the reference."""
    # One value, or equal ones, span nothing: their size is the scale then.
    return float(np.ptp(reference)) or float(np.abs(reference).max()) or 1.0


def decisions(
    reference: Doubles, result: Doubles, tie_margin: float, task: Task, scale: float | None = None
) -> Decisions:
    """Compare what is decided on each clip.

    Args:
        reference: logits (N, num_labels).
        result: the same of the model under test.
        tie_margin: see `Gate.tie_margin`.
        task: what they mean; not a regression, which decides nothing.
        scale: what the margin is relative to; None: `scale_of` these logits.
    """
    scale = scale_of(reference) if scale is None else scale
    if task == "multi_label_classification":
        flipped = (reference >= 0) != (result >= 0)  # a logit of 0 is a probability of one half
        # Only one logit can err here, and not two against each other as in a tie of two classes.
        return Decisions(flipped, np.abs(reference) <= tie_margin / 2 * scale)
    return Decisions(reference.argmax(1) != result.argmax(1), margins(reference) <= tie_margin * scale)


def margins(logits: Doubles) -> Doubles:
    """Return the best minus the second-best logit of each clip; infinite if there is only one."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    top = np.sort(logits, axis=1)
    found: Doubles = top[:, -1] - top[:, -2]
    return found


def divergences(reference: Doubles, result: Doubles, task: Task) -> Doubles:
    """Return the KL divergence of each clip in nats; see `Drift.kl`."""
    if task == "multi_label_classification":
        return _of_labels(reference, result)
    p, q = log_softmax(reference), log_softmax(result)
    # Rounding can leave a divergence of equal distributions at -1e-17. max() would turn NaN into 0.
    found: Doubles = np.maximum(0.0, (np.exp(p) * (p - q)).sum(axis=1))
    return found


def _of_labels(reference: Doubles, result: Doubles) -> Doubles:
    """Return the sum over a clip's labels, each of which is there with the sigmoid of its logit."""
    p = np.exp(-np.logaddexp(0, -reference))
    present = p * (np.logaddexp(0, -result) - np.logaddexp(0, -reference))
    absent = (1 - p) * (np.logaddexp(0, result) - np.logaddexp(0, reference))
    found: Doubles = np.maximum(0.0, (present + absent).sum(axis=1))
    return found


def log_softmax(logits: Doubles) -> Doubles:
    """Return the logarithm of the softmax of each row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def cosines(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> Doubles:
    """Return the cosine of each row of two arrays (N, values)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    same = (x == y).all(axis=1)
    # A zero vector has no direction; it agrees with itself and with nothing else.
    found = np.divide((x * y).sum(axis=1), norms, out=np.zeros(len(x)), where=norms != 0)
    return np.where(same, 1.0, found)


def nonfinite(results: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.int64]:
    """Return how many values of each clip are NaN or infinite, in all outputs."""
    counts = [(~np.isfinite(array)).reshape(len(array), -1).sum(axis=1) for array in results.values()]
    total: npt.NDArray[np.int64] = np.sum(counts, axis=0, dtype=np.int64)
    return total

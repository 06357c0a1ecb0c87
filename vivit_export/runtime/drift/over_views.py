"""Results of a check that are averaged over the views of each clip, as those of `predict` are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.session.backend import join_outputs


def by_clip(rows: npt.NDArray[Any], views: int) -> npt.NDArray[Any]:
    """Return an array of views (N * V, ...) as one of clips (N, V, ...); unchanged for one view."""
    return rows if views == 1 else rows.reshape(-1, views, *rows.shape[1:])


def averaging(
    execute: Callable[[npt.NDArray[Any]], Outputs], views: int, size: int
) -> Callable[[npt.NDArray[Any]], Outputs]:
    """Return a function that runs clips (B, V, ...) and averages the results of each.

    Args:
        execute: runs a batch (B, ...) of views.
        views: V; 1: the clips are (B, ...), and nothing is averaged.
        size: views per call.
    """

    def run(clips: npt.NDArray[Any]) -> Outputs:
        rows = clips.reshape(-1, *clips.shape[2:])
        return averaged(join_outputs([execute(rows[i : i + size]) for i in range(0, len(rows), size)]), views)

    return execute if views == 1 else run


def averaged(outputs: Outputs, views: int) -> Outputs:
    """Average results (N * V, values) over the V views of each clip, in double precision as `average_views` does."""
    if views == 1:
        return outputs
    return {
        name: array.reshape(-1, views, *array.shape[1:]).mean(axis=1, dtype=np.float64).astype(np.float32)
        for name, array in outputs.items()
    }

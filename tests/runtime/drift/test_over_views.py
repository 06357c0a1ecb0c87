"""Results that are averaged over views: the same as `average_views` gives for each clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.runtime.clips.views import average_views
from vivit_export.runtime.drift.over_views import averaged, averaging, by_clip


def test_each_clip_has_the_mean_of_its_views_in_batches_of_any_size() -> None:
    logits = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    expected = np.stack([average_views(logits[i : i + 3]) for i in range(0, 12, 3)])
    sizes: list[int] = []

    def execute(rows: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        sizes.append(len(rows))
        return {"logits": logits[rows]}

    clips = by_clip(np.arange(12), 3)
    assert clips.shape == (4, 3)
    np.testing.assert_array_equal(averaging(execute, 3, 5)(clips)["logits"], expected)
    assert sizes == [5, 5, 2]
    np.testing.assert_array_equal(averaged({"logits": logits}, 3)["logits"], expected)


def test_one_view_is_left_as_it_is() -> None:
    rows, outputs = np.arange(4), {"logits": np.zeros((4, 2), np.float32)}
    assert by_clip(rows, 1) is rows and averaged(outputs, 1) is outputs
    assert averaging(len, 1, 2) is len  # type: ignore[arg-type,comparison-overlap]

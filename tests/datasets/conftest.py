"""Videos for the tests of runs on Ray, which are left out where its packages are missing and not promised."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from videos import make_video

if "ray" not in os.environ.get("VIVIT_REQUIRE", "").split(",") and not all(
    map(importlib.util.find_spec, ("pyarrow", "ray"))
):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def few_videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven short videos of different lengths."""
    folder = tmp_path_factory.mktemp("few")
    return [make_video(folder / f"{count}.mp4", count) for count in range(9, 16)]


@pytest.fixture
def folder(few_videos: list[Path], tmp_path: Path) -> Path:
    """Forty links to the videos, and in the middle one that is none."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:03}.mp4").hardlink_to(few_videos[number % len(few_videos)])
    (folder / "017.mp4").unlink()
    (folder / "017.mp4").write_bytes(b"no video")
    return folder

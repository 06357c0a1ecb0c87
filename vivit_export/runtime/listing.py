"""The videos that a command names: files, and folders to look into."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vivit_export.errors import ClipError
from vivit_export.runtime.clips.folder import find_clips
from vivit_export.runtime.predict import VideoFault, error_of


@dataclass(frozen=True, slots=True)
class ListedVideos:
    """What was named.

    Attributes:
        files: videos, usable or not.
        faults: folders that hold none.
    """

    files: tuple[Path, ...]
    faults: tuple[VideoFault, ...] = ()


def list_videos(paths: Iterable[Path], note: Callable[[str], None] | None = None) -> ListedVideos:
    """Replace each folder with its videos, in sorted order; keep each file, usable or not.

    Args:
        paths: files and folders.
        note: see `find_clips`.

    Raises:
        ClipError: there is no video at all: every folder is empty, or no file exists.
    """
    files: list[Path] = []
    faults: list[VideoFault] = []
    for path in paths:
        try:
            files += find_clips(path, note) if os.path.isdir(path) else [path]
        except ClipError as e:
            faults.append(VideoFault(path, e))
    if not files:
        raise error_of(faults, len(faults))
    return ListedVideos(tuple(files), tuple(faults))

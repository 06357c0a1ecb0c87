"""Find the videos in a folder, and say what was not taken for one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vivit_export.errors import ClipError, counted
from vivit_export.files import as_path
from vivit_export.runtime.clips.video.container import require_file

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
"""A file in a folder is taken for a video if its name ends in one of these."""
_SHOWN = 3


def find_clips(folder_or_file: str | Path, note: Callable[[str], None] | None = None) -> list[Path]:
    """List videos.

    Args:
        folder_or_file: a folder, searched through all levels for files with a video suffix, or one file of any
            name. Hidden files and folders are skipped, and linked folders are not entered.
        note: receives a remark if anything in the folder is ignored: how many files, why, and some names.

    Returns:
        Paths in sorted order; at least one.

    Raises:
        ClipError: it does not exist, or the folder holds no video.
        UsageError: it is not a path.
    """
    root = as_path(folder_or_file, "folder_or_file")
    if os.path.isfile(root):
        return [root]
    if not os.path.isdir(root):
        require_file(root, "a video file or a folder of videos")
    found = _search(root)
    if not found.videos:
        aside = f" (ignored: {found.ignored_text})" if found.ignored else ""
        raise ClipError(
            f"{root} holds no video; files with one of these suffixes are taken: {' '.join(VIDEO_SUFFIXES)}{aside}"
        )
    if found.ignored and note is not None:
        note(f"ignored in {root}: {found.ignored_text}")
    return sorted(found.videos)


@dataclass
class _Found:
    """What is in a folder.

    Attributes:
        videos: files to take, in no order.
        ignored: names of all else below the folder, by what it is.
    """

    videos: list[Path] = field(default_factory=list)
    ignored: dict[str, list[str]] = field(default_factory=dict)

    def ignore(self, what: str, name: str) -> None:
        """Add something that is not taken."""
        self.ignored.setdefault(what, []).append(name)

    @property
    def ignored_text(self) -> str:
        """How many of each kind, with the first names."""
        return ", ".join(_listed(what, sorted(names)) for what, names in sorted(self.ignored.items()))


def _listed(what: str, names: list[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return f"{counted(len(names), what)} ({', '.join(names[:_SHOWN])}{more})"


def _search(root: Path) -> _Found:
    found = _Found()

    def below(folder: str, name: str) -> str:
        return os.path.relpath(os.path.join(folder, name), root)

    def refused(error: OSError) -> None:
        found.ignore("unreadable folders", os.path.relpath(error.filename, root))

    for folder, inner, files in os.walk(root, onerror=refused):
        for name in inner:
            if os.path.islink(os.path.join(folder, name)):
                found.ignore("linked folders", below(folder, name))
            elif name.startswith("."):
                found.ignore("hidden folders", below(folder, name))
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in files:
            path = os.path.join(folder, name)
            if os.path.splitext(name)[1].lower() not in VIDEO_SUFFIXES:
                if not name.startswith("."):  # the system's own, such as .DS_Store
                    found.ignore("files without the suffix of a video", below(folder, name))
            elif name.startswith("."):
                found.ignore("hidden videos", below(folder, name))
            elif not os.path.isfile(path):
                found.ignore("broken links" if os.path.islink(path) else "special files", below(folder, name))
            else:
                found.videos.append(Path(path))
    return found

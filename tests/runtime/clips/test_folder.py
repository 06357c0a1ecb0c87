"""The videos in a folder, and what is said about the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from unprivileged import run_python

from vivit_export.errors import ClipError
from vivit_export.runtime import find_clips


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).touch()


def test_find_clips(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"holds no video; files with one of these suffixes are taken: \.3gp \.avi"):
        find_clips(tmp_path)
    with pytest.raises(ClipError, match="does not exist; give a video file or a folder"):
        find_clips(tmp_path / "gone")
    fill(tmp_path, "b/2.MP4", "b/1.mkv", "a.webm", "labels.json", ".hidden/x.mp4", ".y.mp4", "c.mp4/inner.avi")
    found = [p.relative_to(tmp_path).as_posix() for p in find_clips(str(tmp_path))]
    assert found == ["a.webm", "b/1.mkv", "b/2.MP4", "c.mp4/inner.avi"]
    assert find_clips(tmp_path / "labels.json") == [tmp_path / "labels.json"]


def test_what_is_ignored_is_counted_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    fill(folder, "a.mp4", "b/c.mp4", "b/notes.txt", "x.vob", "y.heic", "z.srt", ".DS_Store", "._a.mp4", ".git/b.mp4")
    fill(tmp_path, "elsewhere/d.mp4")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.mp4").symlink_to(tmp_path / "nothing")
    (folder / "linked.mp4").symlink_to(tmp_path / "elsewhere/d.mp4")
    os.mkfifo(folder / "pipe.mp4")
    notes: list[str] = []
    found = [p.relative_to(folder).as_posix() for p in find_clips(folder, notes.append)]
    assert found == ["a.mp4", "b/c.mp4", "linked.mp4"]
    assert notes == [
        f"ignored in {folder}: 1 broken link (gone.mp4), 4 files without the suffix of a video (b/notes.txt, x.vob, "
        "y.heic, …), 1 hidden folder (.git), 1 hidden video (._a.mp4), 1 linked folder (more), "
        "1 special file (pipe.mp4)"
    ]


def test_nothing_is_said_where_nothing_is_ignored(tmp_path: Path) -> None:
    fill(tmp_path, "a.mp4", "b/c.mkv", ".DS_Store")
    find_clips(tmp_path, pytest.fail)


def test_a_folder_without_videos_says_what_it_holds_instead(tmp_path: Path) -> None:
    fill(tmp_path, "a.heic")
    with pytest.raises(ClipError, match=r"\(ignored: 1 file without the suffix of a video \(a\.heic\)\)$"):
        find_clips(tmp_path)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.mp4", "closed/b.mp4")
    (tmp_path / "closed").chmod(0)
    code = f"""
from vivit_export.runtime import find_clips
notes = []
print([p.name for p in find_clips({str(tmp_path)!r}, notes.append)], notes)
"""
    done = run_python("-c", code)
    (tmp_path / "closed").chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"['a.mp4'] ['ignored in {tmp_path}: 1 unreadable folder (closed)']\n"

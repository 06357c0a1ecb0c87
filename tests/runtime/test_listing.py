"""The videos that a command names."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivit_export.demo import clips_path
from vivit_export.errors import ClipError
from vivit_export.runtime import find_clips
from vivit_export.runtime.listing import list_videos

CLIPS = find_clips(clips_path())


def test_folders_are_replaced_by_their_videos_and_files_stay(tmp_path: Path) -> None:
    notes: list[str] = []
    listed = list_videos([clips_path(), tmp_path / "none.mp4"], notes.append)
    assert listed.files == (*CLIPS, tmp_path / "none.mp4") and not listed.faults
    assert notes == [f"ignored in {clips_path()}: 1 file without the suffix of a video (labels.json)"]


def test_a_folder_without_videos_is_its_own_fault(tmp_path: Path) -> None:
    listed = list_videos([tmp_path, CLIPS[0]])
    assert listed.files == (CLIPS[0],)
    assert [fault.path for fault in listed.faults] == [tmp_path]
    assert "holds no video" in str(listed.faults[0].error)


def test_nothing_but_empty_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(ClipError, match=r"a holds no video"):
        list_videos([tmp_path / "a"])
    with pytest.raises(ClipError, match=r"2 of 2 videos could not be used:\n  .*a holds no video.*\n  .*b holds no"):
        list_videos([tmp_path / "a", tmp_path / "b"])

"""Durations of the clock on the wall, which recorders in browsers write, and files that are really cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from videos import SEGMENT, contract, frame_numbers, make_recording, make_video

from vivit_export.errors import ClipError
from vivit_export.runtime import read_clip
from vivit_export.runtime.clips.video.segment import segment_is_whole


@pytest.mark.parametrize("endless", [False, True])
def test_a_duration_beyond_the_data_is_no_cut(tmp_path: Path, endless: bool) -> None:
    path = make_recording(tmp_path / "recording.webm", endless=endless, seconds=9.5)
    assert segment_is_whole(path)
    assert frame_numbers(read_clip(path, contract(40))) == list(range(40))


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_segment_that_ends_beyond_the_file_is_cut(tmp_path: Path, fraction: float, suffix: str) -> None:
    options = {"g": "10"}
    path = make_video(tmp_path / f"film.{suffix}", codec="libvpx-vp9", codec_options=options, num_frames=46)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    assert not segment_is_whole(path)
    with pytest.raises(ClipError, match=r"is cut short: its header states 1\.8 s but the data end at"):
        read_clip(path, contract(4))


@pytest.mark.parametrize("data", [b"", b"\x1a", b"\x1a\x45\xdf\xa3\x80" + b"\0" * 40, b"\xff" * 100, SEGMENT + b"\x90"])
def test_what_is_no_matroska_is_not_whole(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)
    assert not segment_is_whole(path)

"""What the header of a video says, compared with what was written into it."""

from __future__ import annotations

from pathlib import Path

from videos import make_video

from vivit_export.bundle.clip_view import VideoFacts
from vivit_export.runtime.clips.video.facts import video_facts


def test_a_header_says_size_rate_duration_and_codec(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", 25, size=(96, 64))
    assert video_facts(video) == VideoFacts(96, 64, 25.0, 1.0, "h264")


def test_a_bare_stream_has_no_duration(tmp_path: Path) -> None:
    found = video_facts(make_video(tmp_path / "a.h264", 10))
    assert found is not None and (found.width, found.height, found.seconds) == (64, 48, None)


def test_what_is_no_video_has_no_facts(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0" * 100)
    assert video_facts(tmp_path / "a.mp4") is None
    assert video_facts(tmp_path / "missing.mp4") is None

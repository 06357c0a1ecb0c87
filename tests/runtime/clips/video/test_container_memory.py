"""Reading part of a video, again and again, takes no more memory: what an iterator of packets holds is freed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
from heap import bytes_kept
from videos import make_video, seek_pictures

from vivit_export.runtime.clips.video.container import decoded_frames
from vivit_export.runtime.clips.video.index import read_index

_MOST = 40  # bytes; an iterator that was dropped kept 150


@pytest.fixture
def video(tmp_path: Path) -> Path:
    make_video(tmp_path / "a.mp4", 20)
    return tmp_path / "a.mp4"


def test_some_of_the_frames(video: Path) -> None:
    index = read_index(video)
    assert [number for number, _ in seek_pictures(index, [0, 3], 1)] == [0, 3]
    assert bytes_kept(lambda: list(seek_pictures(index, [0, 3], 1)), 200) < _MOST


def test_some_of_the_frames_of_several_decoders(tmp_path: Path) -> None:
    index = read_index(make_video(tmp_path / "a.mp4", 20, codec_options={"g": "5"}))

    def begin() -> None:
        with closing(cast("Generator[Any, None, None]", seek_pictures(index, [0, 7, 12], 2))) as frames:
            assert next(frames)[0] == 0

    assert [number for number, _ in seek_pictures(index, [0, 7, 12], 2)] == [0, 7, 12]
    assert bytes_kept(lambda: list(seek_pictures(index, [0, 7, 12], 2)), 100) < _MOST
    assert bytes_kept(begin, 100) < _MOST


def test_the_first_frame(video: Path) -> None:
    def first() -> None:
        with closing(decoded_frames(video, 0, 1)) as frames:
            assert len(list(islice(frames, 1))) == 1

    assert bytes_kept(first, 200) < _MOST


def test_packets_until_somebody_stops(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vivit_export.runtime.clips.video.index.stop_if_dropped", stop)

    def begin() -> None:
        with suppress(KeyboardInterrupt):
            read_index(video)

    assert bytes_kept(begin, 200) < _MOST

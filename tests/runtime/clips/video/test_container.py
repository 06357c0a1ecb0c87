"""What is not a video is refused for what it is, and never makes us open anything else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from videos import add_cover, contract, frame_numbers, make_audio, make_video

from vivit_export.errors import ClipError
from vivit_export.runtime import find_clips, read_clip
from vivit_export.runtime.clips.video import container
from vivit_export.runtime.clips.video.container import open_video
from vivit_export.runtime.clips.video.reading import Reading

THEORA = Path(__file__).parents[3] / "data/theora.ogv"  # gray frames as of `make_video`, by FFmpeg's own program

TEXTS = {
    "labels.txt": ("left\nright\n", "is a text file; give a video file"),
    "umlauts.mp4": ("Fön und Übermut\n" * 300, "is a text file; give a video file"),
    "pointer.mp4": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "is a pointer of Git LFS, not the video itself; run git lfs pull",
    ),
    "page.mp4": ("\n<!DOCTYPE html>\n<html><body>Not found</body></html>", "is a web page, not a video; download the"),
    "answer.mp4": ('{"error": "expired"}', "is a text file; give a video file"),
    "list.m3u8": ("#EXTM3U\n#EXTINF:1,\nreal.mp4\n", "is a playlist, which only names other files; give one of these"),
    "with-bom.mp4": ("\ufeff#EXTM3U\n#EXTINF:1,\nreal.mp4\n", "is a playlist"),
    "concat.mp4": ("ffconcat version 1.0\nfile real.mp4\n", "is a playlist"),
    "dash.mp4": ('<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>', "is a playlist"),
    "session.mp4": ("v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "is a playlist"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.field_case("kinetics 16")
def test_text_is_refused_for_what_it_is(tmp_path: Path, name: str) -> None:
    make_video(tmp_path / "real.mp4")
    text, sentence = TEXTS[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ClipError, match=f"{name} {sentence}"):
        read_clip(tmp_path / name, contract(4))


DISGUISES = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nreal.ts\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile real.ts\n",
    "text for long": b"#EXTM3U\n" + b"# \n" * 400 + b"#EXTINF:2,\nreal.ts\n",
    "not quite text": b"#EXTM3U\n# \x00\xff\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nreal.ts\n#EXT-X-ENDLIST\n",
    "concat, not quite text": b"ffconcat version 1.0\n# \x00\xff\nfile real.ts\n",
}


@pytest.mark.parametrize("name", ["film.mp4", "film.m3u8", "film", "film.ts", "%d.png"])
@pytest.mark.parametrize("content", DISGUISES)
def test_no_file_makes_us_open_another(tmp_path: Path, name: str, content: str) -> None:
    """Whether our look at its beginning notices it or not."""
    make_video(tmp_path / "real.ts")
    make_video(tmp_path / "1.png.mp4")
    path = tmp_path / name
    path.write_bytes(DISGUISES[content])
    with pytest.raises(
        ClipError, match=r"is a playlist|is not a video of a kind that is read here|cannot be read as a vid"
    ):
        read_clip(path, contract(4))


def test_pictures_are_no_videos(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "webp"):
        Image.new("RGB", (64, 48)).save(tmp_path / f"frame.{suffix}")
        with pytest.raises(ClipError, match="is not a video of a kind that is read here; convert it to MP4"):
            read_clip(tmp_path / f"frame.{suffix}", contract(1))


def test_noise_and_emptiness(tmp_path: Path) -> None:
    noise, empty = tmp_path / "noise.mp4", tmp_path / "empty.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    empty.touch()
    with pytest.raises(ClipError, match=r"noise\.mp4 cannot be read as a video \(Invalid data"):
        read_clip(noise, contract(4))
    with pytest.raises(ClipError, match=r"empty\.mp4 is empty; give a video file"):
        read_clip(empty, contract(4))


# --- songs -------------------------------------------------------------------------------------------


def test_sound_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"song\.m4a has no video stream, only audio; give a video file"):
        read_clip(make_audio(tmp_path / "song.m4a"), contract(4))


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = add_cover(make_audio(tmp_path / "song.m4a"))
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["audio", "video"]
    with pytest.raises(ClipError, match="has no video stream, only audio and a cover picture; give a video file"):
        read_clip(path, contract(1))


def test_a_film_with_a_cover_picture_is_a_film(tmp_path: Path) -> None:
    path = make_video(tmp_path / "film.mp4")
    expected = read_clip(path, contract(4))
    np.testing.assert_array_equal(read_clip(add_cover(path), contract(4)), expected)


@pytest.mark.field_case("EIRTeam.FFmpeg 73")
def test_a_codec_that_nobody_knows_is_named_as_the_reason(tmp_path: Path) -> None:
    path = make_video(tmp_path / "new.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(ClipError, match=r"new\.mp4 holds video for which FFmpeg has no decoder here; convert it"):
        read_clip(path, contract(4))


@pytest.mark.parametrize("codec", ["theora", "h264"])
@pytest.mark.field_case("pytorch/vision 2490")
def test_theora_is_decoded_one_frame_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    """With a thread for each frame, FFmpeg's decoder shows wrong pictures in one reading of fifty."""
    path, opened = (THEORA if codec == "theora" else make_video(tmp_path / "a.mp4")), list[Any]()
    monkeypatch.setattr(container, "open_video", lambda path: keep(open_video(path), opened))
    assert frame_numbers(read_clip(path, contract(40), Reading("full"))) == list(range(40))
    assert [video.thread_type.name for video in opened] == ["SLICE" if codec == "theora" else "AUTO"]


@pytest.mark.parametrize(("size", "threads"), [((640, 360), 1), ((656, 360), 3)])
def test_small_frames_are_decoded_by_one_thread(tmp_path: Path, size: tuple[int, int], threads: int) -> None:
    path = make_video(tmp_path / "a.mp4", 2, size=size)
    with open_video(path) as (_, video):
        container.share_among(3, video)
        assert video.thread_count == threads


@contextmanager
def keep(opening: Any, opened: list[Any]) -> Iterator[Any]:
    with opening as (file, video):
        opened.append(video)
        yield file, video


# --- what is not a file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone.mp4", "gone.mp4 does not exist; give a video file"),
        ("-", "standard input cannot be searched as a video must be; save the video to a file first"),
        ("https://example.com/a.mp4", "example.com/a.mp4 is an address, and only files are read; download the video"),
        ("s3://bucket/a.mp4", "is an address"),
        ("x" * 300 + ".mp4", "cannot be read: File name too long; give a video file that you may read"),
        (".", "is a folder; give one video file"),
    ],
)
def test_what_does_not_exist_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ClipError, match=sentence):
        read_clip(name, contract(4))
    if name not in (".", "gone.mp4"):
        with pytest.raises(ClipError, match=sentence):
            find_clips(name)


def test_pipes_sockets_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.mp4"))
        found = [("pipe.mp4", "a pipe"), ("s.mp4", "a socket"), ("/dev/null", "a device")]
        for name, kind in found:
            for read in (lambda path: read_clip(path, contract(4)), find_clips):
                with pytest.raises(ClipError, match=f"{name} is {kind}, not a file; save the video to a file first"):
                    read(tmp_path / name)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    path = make_video(folder / "film.mp4")
    folder.chmod(0)
    try:
        with as_nobody():
            for read in (lambda: read_clip(path, contract(4)), lambda: find_clips(path)):
                with pytest.raises(ClipError, match=r"film\.mp4 cannot be read: Permission denied; give a video file"):
                    read()
    finally:
        folder.chmod(0o700)

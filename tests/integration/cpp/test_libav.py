"""The reader of other videos, built against FFmpeg's libraries, beside the Python runtime."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest
from attacked import SECONDS
from cpp_project import Cpp, Libav, Request, hashes_of, run
from hostile_videos import VIDEOS
from PIL import Image
from videos import (
    LATE_CODECS,
    ORIENTATIONS,
    add_cover,
    make_audio,
    make_late,
    make_picture_video,
    make_recording,
    make_video,
    moving_picture,
    patch_box,
    remux,
    set_matrix,
)

from vivit_export import demo
from vivit_export.choices import Decode
from vivit_export.errors import VivitExportError
from vivit_export.runtime.clips.video.container import _SMALL_FRAME, FORMATS
from vivit_export.runtime.clips.video.frames import read_sampled
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.clips.video.seek import _MOST_BYTES, _PICTURES_OF_A_DECODER

pytestmark = pytest.mark.needs_onnxruntime


def test_every_frame_of_other_videos_is_pythons_bit_for_bit(libav: Libav) -> None:
    assert not assert_as_in_python(libav, sorted(demo.clips_path().glob("*.mp4")))


def test_what_is_no_other_video_is_refused_as_in_python(libav: Libav, tmp_path: Path) -> None:
    whole = (demo.clips_path() / "up_240x426_30fps.mp4").read_bytes()
    paths = []
    for name, data in {"text": b"no video at all\n", "noise": b"\0noise", "cut.mp4": whole[:3000]}.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    assert len(assert_as_in_python(libav, [*paths, tmp_path / "none", tmp_path])) == 5


def test_hostile_videos_are_refused_as_in_python_and_at_once(libav: Libav, tmp_path: Path) -> None:
    names = [name for name in VIDEOS if not name.endswith(".y4m")]  # which C++ reads without FFmpeg
    for name in names:
        VIDEOS[name](tmp_path / name)
    before = time.process_time()
    assert len(assert_as_in_python(libav, [tmp_path / name for name in names])) == len(names)
    assert time.process_time() - before < SECONDS * len(names)


def test_a_video_whose_end_is_missing_is_refused_as_in_python(libav: Libav, tmp_path: Path) -> None:
    source = demo.clips_path() / "up_240x426_30fps.mp4"
    with av.open(source) as container:
        starts = sorted(packet.pos or 0 for packet in container.demux(video=0) if packet.size)
    paths = [tmp_path / "between.mp4", tmp_path / "inside.mp4"]  # of two packets, of one
    for path, end in zip(paths, (starts[20], starts[20] + 5), strict=True):
        path.write_bytes(source.read_bytes()[:end])
    between, inside = assert_as_in_python(libav, paths)
    assert "its header states 1.5 s" in between
    assert "its last data" in inside


def test_other_videos_are_recognized_where_libav_is(cpp: Cpp, libav: Libav) -> None:
    video = demo.clips_path() / "up_240x426_30fps.mp4"
    found = run(libav.vivit_run, cpp.bundle, video, "--repeat", "1", env=libav.env).splitlines()
    expected = run(cpp.vivit_run, cpp.bundle, cpp.video, "--repeat", "1").splitlines()
    assert found[0].startswith(f"{video}: 45 frames of 240x426, on ")
    assert found[1:6] == expected[1:6]


# --- the same files in both -------------------------------------------------------------------------------------


def assert_as_in_python(libav: Libav, paths: list[Path]) -> list[str]:
    """All frames, decoded in full or as needed, or the same sentence for each; return the sentences."""
    said = []
    for decode in get_args(Decode):
        answers = libav.ask([{"path": str(path), "decode": decode} for path in paths])
        expected = [read_in_python(path, Reading(decode)) for path in paths]
        assert answers == expected
        said = [answer["error"] for answer in expected if "error" in answer]
    return said


def read_in_python(path: Path, reading: Reading) -> Request:
    notes: list[str] = []
    reading = dataclasses.replace(reading, note=lambda _path, why: notes.append(why))
    try:
        frames = read_sampled(path, np.arange, reading=reading)
    except VivitExportError as e:
        return {"notes": notes, "error": str(e)}
    return {"notes": notes, "shape": list(frames.shape), "frames": hashes_of(frames)}


def test_all_orientations(libav: Libav, tmp_path: Path) -> None:
    paths = []
    matrices = [*ORIENTATIONS.values(), (0, 0, 0, 0), (1, 0.005, -0.3, 1), (0.7071, 0.7071, -0.7071, 0.7071)]
    for number, matrix in enumerate(matrices):
        paths.append(make_video(tmp_path / f"{number}.mp4", 6, size=(64, 50), marked=True))
        set_matrix(paths[-1], matrix)
    (tilted,) = assert_as_in_python(libav, paths)
    assert "is turned by 45 degrees clockwise; only quarter turns are supported" in tilted


@pytest.mark.field_case("PyAV 2347")
def test_the_two_fields_of_interlaced_frames(libav: Libav, tmp_path: Path) -> None:
    """Whose height is even, as all broadcast sizes are: others are interpolated, which differs from FFmpeg 7 to 8."""
    pictures = [moving_picture(i, 96, 64) for i in range(4)]
    options = {"flags": "+ilme+ildct", "qmin": "1", "qmax": "2"}
    path = make_picture_video(tmp_path / "fields.ts", pictures, codec="mpeg2video", codec_options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    assert not assert_as_in_python(libav, [path])


def test_color_matrices_without_a_conversion(libav: Libav, tmp_path: Path) -> None:
    pictures = [moving_picture(i, 96, 64) for i in range(2)]
    paths = [
        make_picture_video(tmp_path / f"{number}.mkv", pictures, codec="mpeg4", colorspace=number)
        for number in (1, 5, 7, *range(8, 18))
    ]
    assert len(assert_as_in_python(libav, paths)) == 9


@pytest.mark.parametrize("codec", ["h264", "h264-open", "mpeg4-open", "mpeg2-open", "vp9"])
def test_recordings_that_begin_between_key_frames(libav: Libav, tmp_path: Path, codec: str) -> None:
    options = {
        "h264": ("libx264", {"g": "12", "bf": "0", "qp": "10"}),
        "h264-open": ("libx264", {"g": "12", "bf": "2", "qp": "10", "x264-params": "open-gop=1:b-adapt=0"}),
        "mpeg4-open": ("mpeg4", {"g": "12", "bf": "2", "sc_threshold": "1000000000"}),
        "mpeg2-open": ("mpeg2video", {"g": "12", "bf": "2", "sc_threshold": "1000000000"}),
        "vp9": ("libvpx-vp9", {"g": "12"}),
    }
    name, codec_options = options[codec]
    paths = []
    for suffix in ("mp4", "mkv") if codec == "vp9" else ("mp4", "avi", "mkv", "ts"):
        source = make_video(tmp_path / f"whole.{suffix}", codec=name, codec_options=codec_options)
        for before in (5, 10, 12):
            paths.append(tmp_path / f"{before}.{suffix}")
            remux(source, paths[-1], lambda index, data, before=before: None if index < before else data)
    assert not assert_as_in_python(libav, paths)


def test_key_frames_that_come_late_and_not_at_all(libav: Libav, tmp_path: Path) -> None:
    videos = [make_late(tmp_path, codec=codec) for codec in LATE_CODECS]
    paths = [late for _, late in videos if "mpeg4" not in late.name]  # whose inverse transform differs from 7 to 8
    for whole, _ in videos:
        paths.append(tmp_path / f"no-{whole.name}")
        remux(whole, paths[-1], lambda n, data: data if 0 < n < 240 else None)
    said = assert_as_in_python(libav, paths)
    assert ["has no key frame" in text for text in said] == [True] * len(LATE_CODECS)


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "mpeg2.ts", "mpeg2.avi"])
def test_damage(libav: Libav, tmp_path: Path, name: str) -> None:
    codec = {"h264": "libx264", "mpeg4": "mpeg4", "mpeg2": "mpeg2video"}[name.partition(".")[0]]
    pictures = [moving_picture(i, 160, 120) for i in range(40)]
    whole = make_picture_video(tmp_path / name, pictures, codec=codec, codec_options={"g": "12", "bf": "2"})
    with av.open(str(whole)) as container:
        packets = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    paths = []  # not the whole one: MPEG-4's inverse transform differs by a level between FFmpeg 7 and 8
    for number in (0, 1, 2, 7, 20):  # zeros over the second half of a packet, or over all but its beginning
        position, size = packets[number]
        for part in (size // 2, 8):
            data = bytearray(whole.read_bytes())
            data[position + part : position + size] = bytes(size - part)
            paths.append(tmp_path / f"{number}-{part}-{name}")
            paths[-1].write_bytes(data)
    said = assert_as_in_python(libav, paths)
    assert len(said) >= 5


def test_joined_recordings_and_clocks_on_the_wall(libav: Libav, tmp_path: Path) -> None:
    paths = []
    for name, codec in (
        ("a.ts", "libx264"),
        ("a.vob", "mpeg2video"),
        ("a.webm", "libvpx"),
        ("a.mkv", "libx264"),
        ("a.flv", "flv"),
    ):
        one = make_video(tmp_path / name, codec=codec)
        paths.append(tmp_path / f"joined-{name}")
        paths[-1].write_bytes(one.read_bytes() * 3)
    paths += [make_recording(tmp_path / f"{e}.webm", endless=e, seconds=9.5) for e in (True, False)]
    paths.append(tmp_path / "cut.webm")
    data = paths[-2].read_bytes()
    paths[-1].write_bytes(data[: len(data) // 2])
    said = assert_as_in_python(libav, paths)
    assert ["several recordings" in text for text in said] == [True, True, True, False]
    assert "is cut short: its header states 9.5 s but the data end at" in said[3]


def test_what_is_no_video_at_all(libav: Libav, tmp_path: Path) -> None:
    texts = {
        "empty.mp4": "",
        "labels.mp4": "Fön\nleft\n",
        "page.mp4": "\n<!DOCTYPE html><html></html>",
        "pointer.mp4": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
        "list.mp4": "\ufeff#EXTM3U\n#EXTINF:1,\nreal.ts\n",
        "concat.mp4": "ffconcat version 1.0\nfile real.ts\n",
        "disguise.mp4": "#EXTM3U\n# \0\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nreal.ts\n#EXT-X-ENDLIST\n",
        "dash.mp4": '<?xml version="1.0"?>\n<MPD></MPD>',
    }
    make_video(tmp_path / "real.ts")
    paths = [tmp_path / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    Image.new("RGB", (64, 48)).save(tmp_path / "frame.png")
    os.mkfifo(tmp_path / "pipe.mp4")
    with (tmp_path / "hollow.mp4").open("wb") as hollow:  # a download that has only begun
        hollow.write(b"\0\0\0\x18ftypmp42")
        hollow.truncate(1 << 40)
    paths += [
        tmp_path / "hollow.mp4",
        tmp_path / "frame.png",
        tmp_path / "pipe.mp4",
        Path("/dev/null"),
        Path("-"),
        Path("https://host/a.mp4"),
    ]
    paths += [
        tmp_path / ("x" * 300 + ".mp4"),
        make_audio(tmp_path / "a.m4a"),
        add_cover(make_audio(tmp_path / "b.m4a")),
    ]
    paths.append(make_video(tmp_path / "unknown.mp4", 4))
    paths[-1].write_bytes(paths[-1].read_bytes().replace(b"avc1", b"zzzz"))
    paths.append(add_cover(make_video(tmp_path / "film.mp4", 4)))
    assert len(assert_as_in_python(libav, paths)) == len(paths) - 1


def test_an_edit_list_may_begin_with_any_picture(libav: Libav, tmp_path: Path) -> None:
    options = {"bf": "3", "x264-params": "b-adapt=0:b-pyramid=normal"}
    paths = [make_video(tmp_path / f"{first}.mp4", codec_options=options) for first in range(8, 20)]
    for first, path in enumerate(paths, 8):
        patch_box(path, b"elst", 8, "Ii", (40 - first) * 40, first * 512 + 1024)
    assert not assert_as_in_python(libav, paths)


def test_both_read_the_same_kinds_of_files(cpp: Cpp) -> None:
    header = (cpp.home / "project/include/vivit/detail/libav/container.hpp").read_text(encoding="utf-8")
    listed = re.search(r"formats =([^;]*);", header)
    assert listed is not None
    assert tuple(re.sub(r'["\s]', "", listed[1]).split(",")) == FORMATS


def test_both_share_cores_among_decoders_in_the_same_way(cpp: Cpp) -> None:
    folder = cpp.home / "project/include/vivit/detail/libav"
    constants: dict[str, list[int]] = {}
    for name in ("decoder.hpp", "seek_at_once.hpp"):
        for constant, value in re.findall(r"constexpr std::int64_t (\w+) = (.*);", (folder / name).read_text("utf-8")):
            constants[constant] = [int(number) for number in re.findall(r"\b\d+\b", value)]
    (width, height), (mebibytes, _), (pictures,) = (
        constants[name] for name in ("small_frame", "most_bytes_of_pictures", "pictures_of_a_decoder")
    )
    assert width * height == _SMALL_FRAME
    assert (mebibytes << 20, pictures) == (_MOST_BYTES, _PICTURES_OF_A_DECODER)

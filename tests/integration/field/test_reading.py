"""Videos of the field cases (docs/field-cases.md), read frame by frame: each frame carries its number."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from videos import contract, frame_numbers, make_audio, make_video, remux

from vivit_export.errors import ClipError
from vivit_export.runtime import read_clip, read_windows
from vivit_export.runtime.clips.folder import find_clips

FINE = {"qmin": "1", "qmax": "2"}
# Name of the file, how it is made, and whether its header says how many frames it has.
VIDEOS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "PyAV 869": ("broadcast.ts", {}, False),
    "PyAV 976": ("b-frames.mp4", {"codec_options": {"bf": "4"}}, True),
    "PyAV 1131": ("browser.webm", {"codec": "libvpx", "codec_options": {"b": "2M", "qmax": "8"}}, False),
    "transformers 48077": ("plain.mkv", {}, False),
    "gpac 253": (
        "pieces.mp4",
        {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}},
        False,
    ),
    "vllm-omni 7373": ("windows.asf", {"codec": "wmv2", "codec_options": FINE}, False),
    "decord 124": ("xvid.avi", {"codec": "mpeg4", "codec_options": FINE}, True),
    "bestsource 91": ("h264.avi", {"codec_options": {"bf": "2"}}, True),
    "decord 365": (
        "many-b-frames.mp4",
        {"codec_options": {"bf": "8", "x264-params": "b-adapt=0:b-pyramid=normal"}},
        True,
    ),
    "decord 91": ("vp8.webm", {"codec": "libvpx", "codec_options": {"b": "2M", "qmax": "8", "g": "10"}}, False),
    "decord 221": ("av1.mp4", {"codec": "libsvtav1", "codec_options": {"preset": "12", "crf": "10"}}, True),
    "torchcodec 1502": ("key-frames.mp4", {"codec_options": {"g": "7"}}, True),
    "decord 343": ("longer-sound.mp4", {"audio_seconds": 4.0}, True),
}
KINDS = {
    "h264.mp4": "libx264", "h265.mkv": "libx265", "vp8.webm": "libvpx", "vp9.webm": "libvpx-vp9",
    "av1.webm": "libsvtav1", "mpeg2.mpg": "mpeg2video", "mpeg4.avi": "mpeg4", "wmv.asf": "wmv2", "flash.flv": "flv",
    "prores.mov": "prores_ks",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "is_counted"),
    [pytest.param(*video, id=case, marks=pytest.mark.field_case(case)) for case, video in VIDEOS.items()],
)
def test_every_frame_is_there_in_order(tmp_path: Path, name: str, options: dict[str, Any], is_counted: bool) -> None:
    path = make_video(tmp_path / name, **options)
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"XVID"))  # as the encoder of that name signs its files
    with av.open(str(path)) as container:
        assert bool(container.streams.video[0].frames) == is_counted
    assert frame_numbers(read_clip(path, contract(40))) == list(range(40))
    assert frame_numbers(read_clip(path, contract(3))) == [0, 13, 26]
    with pytest.raises(ClipError, match="has 40 frames but the model takes 41"):
        read_clip(path, contract(41))


@pytest.mark.field_case("pytorch/vision 2490")
@pytest.mark.parametrize("name", KINDS)
def test_the_same_frames_at_each_reading(tmp_path: Path, name: str) -> None:
    codec, form = KINDS[name], "yuv422p10le" if name == "prores.mov" else "yuv420p"
    options = {"libvpx": {"b": "2M", "qmax": "8"}, "libsvtav1": {"preset": "12", "crf": "10"}}.get(
        codec, {} if codec == "libvpx-vp9" else FINE
    )
    path = make_video(tmp_path / name, codec=codec, codec_options=options, pix_fmt=form)
    first = read_clip(path, contract(40))
    assert frame_numbers(first) == list(range(40))
    for _ in range(5):
        np.testing.assert_array_equal(read_clip(path, contract(40)), first)


_VOP = b"\0\0\1\xb6"  # the start of a picture in MPEG-4 part 2 (ISO/IEC 14496-2, table 6-3)


def kind(packet: bytes) -> int:
    """The type of its first picture: 0 I, 1 P, 2 B."""
    return packet[packet.index(_VOP) + len(_VOP)] >> 6


@pytest.mark.field_case("javacv 841")
def test_packed_b_frames(tmp_path: Path) -> None:
    """As DivX 5 packs them: a B-frame lies in the packet of the frame after it, whose own packet shows nothing."""
    source = make_video(tmp_path / "plain.avi", codec="mpeg4", codec_options={**FINE, "bf": "1", "g": "12"})
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    packed = list[bytes]()
    for number, data in enumerate(packets):
        if kind(data) == 2:
            packed.append(_VOP + b"\x51\0\0")
        else:
            after = packets[number + 1 : number + 2]
            packed.append(data + b"".join(b for b in after if kind(b) == 2))
    at = packed[0].index(_VOP)
    packed[0] = packed[0][:at] + b"\0\0\1\xb2DivX503b1393p" + packed[0][at:]
    path = remux(source, tmp_path / "packed.avi", lambda number, _: packed[number])
    assert sum(len(data) < 10 for data in packed) > 15
    assert frame_numbers(read_clip(path, contract(40))) == list(range(40))


# --- times ---------------------------------------------------------------------------------------------------


def write(path: Path, times: list[int], tick: Fraction, size: tuple[int, int] = (64, 48)) -> Path:
    """A video whose frames are shown at these multiples of a tick."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=1 / tick)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = tick
        for number, time in enumerate(times):
            image = np.full((size[1], size[0], 3), 24 + 5 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.field_case("torchcodec 1209")
@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_seconds_count_from_the_first_frame(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"late.{suffix}", [250 + i for i in range(40)], Fraction(1, 25))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time == pytest.approx(10, abs=2)  # a muxer may add its delay
    found = list(read_windows(path, contract(5), window=0.8, hop=0.8))
    assert [(w.start_seconds, w.end_seconds) for w in found] == [pytest.approx((0, 0.8)), pytest.approx((0.8, 1.6))]
    assert frame_numbers(found[1].frames) == [20, 24, 28, 32, 36]


@pytest.mark.field_case("opencv 22571")
def test_a_thousand_frames_a_second(tmp_path: Path) -> None:
    path = write(tmp_path / "camera.mkv", list(range(40)), Fraction(1, 1000))
    assert frame_numbers(read_clip(path, contract(40))) == list(range(40))
    found = list(read_windows(path, contract(2), window=0.02, hop=0.02))
    assert [frame_numbers(window.frames) for window in found] == [[0, 10], [20, 30]]


@pytest.mark.field_case("lerobot 3884")
@pytest.mark.parametrize("rate", [24, 25, 30, 60])
def test_the_last_window_ends_with_the_video(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "short.mp4", list(range(37)), Fraction(1, rate))
    *_, last = read_windows(path, contract(3), window=0.3, hop=0.1)
    assert last.end_seconds == pytest.approx(37 / rate, abs=1e-3)
    assert frame_numbers(last.frames)[-1] <= 36


# --- other streams -------------------------------------------------------------------------------------------


@pytest.mark.field_case("ChitraMaya 6", "decord 232")
@pytest.mark.parametrize("chosen", [0, 1])
def test_of_two_pictures_the_default_one_is_taken_whatever_lies_beside_them(tmp_path: Path, chosen: int) -> None:
    """As by `ffmpeg` and its `av_find_best_stream`."""
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("libx264", rate=25) for _ in range(2)]
        container.add_attachment("font.ttf", "application/x-truetype-font", b"letters")
        for number, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            if number == chosen:
                stream.disposition = Disposition.default
        for number in range(40):
            for stream, shown in zip(streams, (number, 39 - number), strict=True):
                image = np.full((48, 64, 3), 24 + 5 * shown, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2 and len(container.streams) == 3
    assert frame_numbers(read_clip(path, contract(40))) == list(range(40))[:: -1 if chosen else 1]


# --- files ---------------------------------------------------------------------------------------------------


@pytest.mark.field_case("decord 299")
@pytest.mark.parametrize("name", ["noise.mp4", "noise.mkv", "noise.avi"])
def test_what_is_no_video_is_told_in_one_short_sentence(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(1 << 16))
    with pytest.raises(ClipError) as caught:
        read_clip(tmp_path / name, contract(1))
    said = caught.value.sentence.replace(str(tmp_path), "")
    assert len(said) < 300 and said.isprintable()
    assert capfd.readouterr() == ("", "")


@pytest.mark.field_case("SlowMovie 111")
def test_what_macos_leaves_beside_a_video_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "._a.mp4").touch()
    assert find_clips(tmp_path) == [tmp_path / "a.mp4"]


ODD = [b"\xff\xfe.mp4", b"two\nlines.mp4", b"number-%03d.mp4", b"concat:a|b.mp4", b"#.mp4", "Füße 漢字.mp4".encode()]


@pytest.mark.field_case("PyAV 1107")
@pytest.mark.parametrize("name", ODD, ids=repr)
def test_names_are_names(tmp_path: Path, name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / os.fsdecode(name)
    make_video(tmp_path / "plain.mp4").rename(path)
    monkeypatch.chdir(tmp_path)
    for given in (path, path.name, Path(path.name)):
        assert frame_numbers(read_clip(given, contract(4))) == [0, 10, 20, 30]


@pytest.mark.field_case("decord 1")
def test_many_files_leave_none_open(tmp_path: Path) -> None:
    good, bad = make_video(tmp_path / "good.mp4"), make_audio(tmp_path / "bad.m4a")
    for path in (good, bad):
        _try(path)  # what is opened once for the whole process
    before = os.listdir("/proc/self/fd")
    for number in range(200):
        _try(bad if number % 4 == 0 else good)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def _try(path: Path) -> None:
    try:
        read_clip(path, contract(4))
    except ClipError:
        assert path.suffix == ".m4a"

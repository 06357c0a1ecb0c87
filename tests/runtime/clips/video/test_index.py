"""Which packets show a frame and when: recordings that begin between key frames, and joined ones."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from videos import (
    LATE_CODECS,
    contract,
    frame_numbers,
    make_late,
    make_video,
    make_vp8_with_hidden_frames,
    patch_box,
    remux,
)

from vivit_export.errors import ClipError
from vivit_export.limits import ALIGNMENT_PIXELS, PIXELS_VARIABLE
from vivit_export.runtime import read_clip, read_windows
from vivit_export.runtime.clips.video.frames import read_sampled
from vivit_export.runtime.clips.video.index import read_index, timeline_of
from vivit_export.runtime.clips.video.reading import Reading

# --- recordings that begin between key frames --------------------------------------------------------------

CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"g": "12", "bf": "0", "qp": "10"}),
    "h264-open": ("libx264", {"g": "12", "bf": "2", "qp": "10", "x264-params": "open-gop=1:b-adapt=0"}),
    "hevc-open": ("libx265", {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:qp=10:log-level=none"}),
    "mpeg4-open": ("mpeg4", {"g": "12", "bf": "2", "qmin": "1", "qmax": "2", "sc_threshold": "1000000000"}),
    "mpeg2-open": ("mpeg2video", {"g": "12", "bf": "2", "qmin": "1", "qmax": "2", "sc_threshold": "1000000000"}),
    "vp9": ("libvpx-vp9", {"g": "12", "crf": "10", "b": "0"}),
}
CUTS = [
    *((codec, suffix) for codec in ("h264", "h264-open", "mpeg4-open") for suffix in ("mp4", "avi", "mkv", "ts")),
    *(("mpeg2-open", suffix) for suffix in ("mp4", "avi", "mkv", "ts", "mpg")),
    *(("hevc-open", suffix) for suffix in ("mp4", "mkv", "ts")),
    *(("vp9", suffix) for suffix in ("mp4", "webm")),
]


def second_key(path: Path) -> int:
    """How many packets come before the second key frame."""
    with av.open(str(path)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    return keys.index(True, 1)


@pytest.mark.parametrize(("codec", "suffix"), CUTS)
@pytest.mark.parametrize("dropped", ["to the key frame", "some"])
def test_packets_that_show_nothing_are_not_missed(tmp_path: Path, codec: str, suffix: str, dropped: str) -> None:
    """All that lies behind the key frame is shown, and nothing of what lies before it is drawn on gray."""
    name, options = CODECS[codec]
    source = make_video(tmp_path / f"whole.{suffix}", codec=name, codec_options=options)
    before = second_key(source) if dropped != "some" else 5
    path = remux(source, tmp_path / f"cut.{suffix}", lambda index, data: None if index < before else data)
    total = 28  # of 40, with key frames at every twelfth
    assert frame_numbers(read_clip(path, contract(total))) == list(range(12, 40))
    with pytest.raises(ClipError, match="has 28 frames but"):
        read_clip(path, contract(total + 1))
    timeline = timeline_of(read_index(path))
    np.testing.assert_allclose(timeline.starts, np.arange(total) / 25, atol=0.002)
    (window,) = read_windows(path, contract(total), window=100, unit="frames")
    assert (window.first_frame, window.end_frame) == (0, total)


@pytest.mark.parametrize("first", range(8, 20))
@pytest.mark.field_case("mediabunny 315")
def test_an_edit_list_may_begin_with_any_picture(tmp_path: Path, first: int) -> None:
    """As a program that cuts without encoding writes it: the first packet shown may hold a later picture."""
    path = make_video(tmp_path / "cut.mp4", codec_options={"bf": "3", "x264-params": "b-adapt=0:b-pyramid=normal"})
    patch_box(path, b"elst", 8, "Ii", (40 - first) * 40, first * 512 + 1024)
    assert frame_numbers(read_clip(path, contract(40 - first))) == list(range(first, 40))


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "h264"), ("flv", "flv"), ("libx264", "mp4")])
@pytest.mark.field_case("PyAV 1105")
def test_the_last_frame_lasts_as_long_as_the_others(tmp_path: Path, codec: str, suffix: str) -> None:
    timeline = timeline_of(read_index(make_video(tmp_path / f"40.{suffix}", codec=codec)))
    assert timeline.end_seconds == pytest.approx(1.6, abs=0.001)


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_a_picture_that_is_refreshed_bit_by_bit_shows_late(tmp_path: Path, suffix: str) -> None:
    """Such a stream has no key frames but the first: its points of recovery need some frames more."""
    options = {"g": "12", "bf": "0", "qp": "10", "x264-params": "intra-refresh=1"}
    source = make_video(tmp_path / f"whole.{suffix}", codec_options=options)
    path = remux(source, tmp_path / f"cut.{suffix}", lambda index, data: None if index < 12 else data)
    with av.open(str(path)) as container:
        shown = sum(1 for _ in container.decode(video=0))
    assert shown < 28
    assert frame_numbers(read_clip(path, contract(shown))) == list(range(40 - shown, 40))


# --- gaps ----------------------------------------------------------------------------------------------------

REORDERED: dict[str, tuple[str, dict[str, str]]] = {
    "by one": ("mpeg4", {"bf": "2"}),
    "by one in h264": ("libx264", {"bf": "2", "x264-params": "b-adapt=0:b-pyramid=none"}),
    "by two": ("libx264", {"bf": "3", "x264-params": "b-adapt=0:b-pyramid=normal"}),
    "not at all": ("libx264", {"bf": "0"}),
}


@pytest.mark.parametrize(("codec", "options"), REORDERED.values(), ids=REORDERED)
@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4", "ts"])
@pytest.mark.field_case("ffms2 3")
def test_a_gap_lies_between_the_frames_that_it_lay_between(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    """AVI stores times of decoding alone, which run ahead by as many frames as the decoder holds back."""
    timeline = timeline_of(read_index(make_video(tmp_path / f"a.{suffix}", gap=20, codec=codec, codec_options=options)))
    times = np.array([*range(20), *range(40, 60)]) / 25
    np.testing.assert_allclose(timeline.starts, times, atol=0.002)
    if suffix != "mp4":  # whose last packet lasts longer there
        assert timeline.end_seconds == pytest.approx(60 / 25, abs=0.002)


# --- key frames that come late --------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "suffix"), [*((codec, "ts") for codec in LATE_CODECS), ("libx264", "h264")])
def test_frames_from_a_late_key_frame_on_are_shown(tmp_path: Path, codec: str, suffix: str) -> None:
    """FFmpeg looks into a file for 5 s; in what comes before a key frame, it finds no size. Its program shows these."""
    whole, late = make_late(tmp_path, codec=codec, suffix=suffix)
    with av.open(str(late)) as container:
        assert not container.streams.video[0].codec_context.width
    expected = read_sampled(whole, np.arange)[250:]
    np.testing.assert_array_equal(read_sampled(late, np.arange), expected)
    assert timeline_of(read_index(late)).starts[-1] == pytest.approx(49 / 25, abs=0.002)


@pytest.mark.parametrize("codec", LATE_CODECS)
def test_a_late_key_frame_may_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    """Too large for the decoder, or not for it, which is told a limit with room for its alignment."""
    monkeypatch.setenv(PIXELS_VARIABLE, "10000")
    for path, room in itertools.product(make_late(tmp_path, (160, 120), codec), (0, ALIGNMENT_PIXELS)):
        monkeypatch.setattr("vivit_export.runtime.clips.video.container.ALIGNMENT_PIXELS", room)
        with pytest.raises(ClipError, match="has frames of no size, or of more than 10000 pixels"):
            read_sampled(path, np.arange)


@pytest.mark.parametrize("codec", LATE_CODECS)
def test_without_any_key_frame_that_is_the_reason(tmp_path: Path, codec: str) -> None:
    whole = make_late(tmp_path, codec=codec)[0]
    path = remux(whole, tmp_path / "none.ts", lambda number, data: data if 0 < number < 240 else None)
    with pytest.raises(ClipError, match=r"none\.ts has no key frame, at which decoding could begin; record or cut it"):
        read_sampled(path, np.arange)


def blank(path: Path, *numbers: int) -> Path:
    """Write zeros over some packets, from the first on."""
    with av.open(str(path)) as container:
        found = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        position, size = found[number]
        data[position + 8 : position + size] = bytes(size - 8)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("codec", "suffix"), [("hevc-open", "mp4"), ("mpeg2-open", "avi"), ("mpeg4-open", "avi"), ("h264", "mp4")]
)
@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_damage_at_the_beginning_is_not_taken_for_a_cut(tmp_path: Path, codec: str, suffix: str, number: int) -> None:
    name, options = CODECS[codec]
    path = make_video(tmp_path / f"worn.{suffix}", codec=name, codec_options=options)
    with pytest.raises(ClipError, match=r"is damaged|cannot be read as a video \(Invalid data"):
        read_clip(blank(path, number), contract(4), Reading("full"))


# --- joined recordings ---------------------------------------------------------------------------------------

JOINED: dict[str, dict[str, Any]] = {
    "h264.ts": {"codec_options": {"bf": "2", "qp": "10"}},
    "with-audio.ts": {"codec_options": {"bf": "2", "qp": "10"}, "audio_seconds": 1.6},
    "mpeg2.ts": {"codec": "mpeg2video", "codec_options": {"qmin": "1", "qmax": "2"}},
    "disc.vob": {"codec": "mpeg2video", "codec_options": {"bf": "2", "qmin": "1", "qmax": "2"}},
    "program.mpg": {"codec": "mpeg2video", "codec_options": {"bf": "2", "qmin": "1", "qmax": "2"}},
}


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("times", [2, 3])
def test_joined_recordings_follow_each_other(tmp_path: Path, name: str, times: int) -> None:
    one, total = make_video(tmp_path / name, **JOINED[name]), 40 * times
    path = tmp_path / f"joined-{name}"
    path.write_bytes(one.read_bytes() * times)
    assert frame_numbers(read_clip(path, contract(total))) == list(range(40)) * times
    timeline = timeline_of(read_index(path))
    np.testing.assert_allclose(timeline.starts, np.arange(total) / 25, atol=0.002)
    assert timeline.end_seconds == pytest.approx(1.6 * times, abs=0.01)
    windows = list(read_windows(path, contract(8), window=0.8))
    assert [round(window.start_seconds, 3) for window in windows] == [round(0.8 * n, 3) for n in range(2 * times)]
    assert [(window.first_frame, window.end_frame) for window in windows] == [
        (20 * n, 20 * n + 20) for n in range(2 * times)
    ]


@pytest.mark.parametrize("name", ["vp9.webm", "h264.mkv", "vp8.webm", "h264.flv", "sorenson.flv"])
def test_containers_that_cannot_be_joined_byte_by_byte(tmp_path: Path, name: str) -> None:
    """FFmpeg shows the second of three, and neither the third nor the right times; of FLV, only the first."""
    codecs = {"vp9.webm": "libvpx-vp9", "vp8.webm": "libvpx", "sorenson.flv": "flv"}
    path = make_video(tmp_path / name, codec=codecs.get(name, "libx264"))
    assert frame_numbers(read_clip(path, contract(40))) == list(range(40))
    path.write_bytes(path.read_bytes() * 3)
    with pytest.raises(
        ClipError, match="is several recordings in one file, of which players show only the first; join"
    ):
        read_clip(path, contract(4))


def test_times_of_a_codec_that_hides_frames(tmp_path: Path) -> None:
    path, shown = make_vp8_with_hidden_frames(tmp_path)
    np.testing.assert_allclose(timeline_of(read_index(path)).starts, np.array(shown) / 25, atol=0.002)

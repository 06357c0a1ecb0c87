"""What packet headers say, against what FFmpeg's decoders do."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from av.bitstream import BitStreamFilterContext
from encoded_videos import ZOO

from vivit_export.runtime.clips.video.nal import holds_idr, is_referred_to, length_bytes_of, nal_headers

NAMES = ("h264-short.mp4", "h264-pyramid.mkv", "h264-scenes.ts", "h264-intra.avi", "hevc-open.mp4", "hevc-pyramid.ts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_decoder_skips_is_not_referred_to(folder: Path, name: str) -> None:
    (video,) = (video for video in ZOO if video.name == name)
    shown: set[int] = set()
    with av.open(str(video.make(folder))) as container:
        context = container.streams.video[0].codec_context
        context.skip_frame, context.thread_count = "NONREF", 1
        length_bytes = length_bytes_of(context.name, context.extradata)
        assert bool(length_bytes) == name.endswith(("mp4", "mkv"))
        referred = {}
        for packet in container.demux(video=0):
            if packet.size:
                referred[packet.pts] = is_referred_to(packet, context.name, length_bytes)
            shown.update(frame.pts for frame in packet.decode() if frame.pts is not None)
    assert None not in referred.values()
    assert {time for time, is_kept in referred.items() if is_kept} == shown


def test_an_idr_is_a_key_frame_of_a_closed_group(folder: Path) -> None:
    (video,) = (video for video in ZOO if video.name == "h264-short.mp4")
    with av.open(str(video.make(folder))) as container:
        for packet in container.demux(video=0):
            if packet.size:
                assert holds_idr(packet, 4) == packet.is_keyframe


@pytest.mark.parametrize("size", [1, 255, 256, 300, 511, 512, 70000])
def test_a_length_is_no_start_code(size: int) -> None:
    """The length of 256 to 511 bytes begins as a start code does."""
    unit = bytes([0x65]) + b"\xaa" * (size - 1)
    assert list(nal_headers(size.to_bytes(4, "big") + unit, 4)) == [0x65]
    assert list(nal_headers(size.to_bytes(3, "big") + unit, 3)) == [0x65]
    assert list(nal_headers(b"\0\0\0\1" + unit + b"\0\0\1\x41", 0)) == [0x65, 0x41]


def test_start_codes_and_lengths_give_the_same(folder: Path) -> None:
    (video,) = (video for video in ZOO if video.name == "h264-pyramid.mp4")
    with av.open(str(video.make(folder))) as container:
        to_start_codes = BitStreamFilterContext("h264_mp4toannexb", container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                expected = is_referred_to(packet, "h264", 4)
                (plain,) = to_start_codes.filter(packet)
                assert is_referred_to(plain, "h264", 0) == expected


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\0", b"\xff" * 9, b"\0\0\1", b"\0\0\0\2\x67\0"])
@pytest.mark.parametrize("length_bytes", [0, 1, 2, 4])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_rubbish_ends(data: bytes, length_bytes: int, codec: str) -> None:
    assert is_referred_to(data, codec, length_bytes) in (None, False, True)


@pytest.mark.parametrize(
    ("codec", "extradata", "length_bytes"),
    [
        ("h264", None, 0),
        ("h264", b"", 0),
        ("h264", b"\0\0\0\1\x67", 0),
        ("h264", b"\1d\0\n\xff", 4),
        ("h264", b"\1d\0\n\xfd", 2),
        ("hevc", b"\1" + b"\0" * 20 + b"\x0f", 4),
        ("hevc", b"\1" + b"\0" * 19, 0),
        ("vp9", b"\1" * 30, 0),
    ],
)
def test_the_streams_header_says_how_long_lengths_are(codec: str, extradata: bytes | None, length_bytes: int) -> None:
    assert length_bytes_of(codec, extradata) == length_bytes

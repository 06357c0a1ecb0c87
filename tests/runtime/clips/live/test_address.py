from __future__ import annotations

import pytest

from vivit_export.errors import UsageError
from vivit_export.runtime.clips.live.address import is_live, live_address


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://a/b",
        "RTSPS://a:1/b",
        "http://a/b.mp4",
        "https://a/b.m3u8",
        "udp://:5000",
        "tcp://a:1",
        "/dev/video12",
        "-",
    ],
)
def test_live(text: str) -> None:
    assert is_live(text)
    assert live_address(text).name


@pytest.mark.parametrize(
    "text", ["a.mp4", "file:///a.mp4", "ftp://a/b", "concat:a|b", "/dev/video", "/dev/video0.mp4", "data:,a", "--"]
)
def test_all_else_is_a_file(text: str) -> None:
    assert not is_live(text)
    with pytest.raises(UsageError, match="names no live video; give an address"):
        live_address(text)


def test_what_is_no_text_is_no_address() -> None:
    assert not is_live(5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rtsp:///a", "names no host"),
        ("tcp://a", "names no port"),
        ("udp://a", "names no port"),
        ("http://a:b/c", "is not an address"),
        ("http://[a/c", "is not an address"),
    ],
)
def test_half_an_address_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        live_address(text)


def test_a_password_is_never_told() -> None:
    assert live_address("rtsp://me:secret@cam:554/a?b=c").name == "rtsp://me:…@cam:554/a?b=c"
    assert live_address("rtsp://me@cam/a").name == "rtsp://me@cam/a"
    assert "secret" in live_address("rtsp://me:secret@cam/a").text


def test_ffmpeg_is_told_what_it_may_open() -> None:
    http = live_address("http://a/b.mp4").options(("mov",))
    assert http["protocol_whitelist"] == "http,https,tls,tcp" and http["format_whitelist"] == "mov"
    assert live_address("https://a/b.M3U8?c=d").options(("mov",))["format_whitelist"] == "mov,hls"
    assert "http" not in live_address("https://a/b").options(())["protocol_whitelist"].split(",")
    assert live_address("-").options(("mov",))["protocol_whitelist"] == "none"
    assert live_address("rtsp://a/b").options(("mov",))["format_whitelist"] == "mov,rtsp"
    for text in ("rtsp://a", "rtsps://a", "http://a", "https://a/b.m3u8", "udp://a:1", "tcp://a:1", "-"):
        assert "file" not in live_address(text).options(())["protocol_whitelist"]


def test_what_is_sent_in_real_time_cannot_wait() -> None:
    late = {text: live_address(text).on_late for text in ("rtsp://a", "udp://a:1", "/dev/video0", "tcp://a:1", "-")}
    assert [*late.values()] == ["drop", "drop", "drop", "wait", "wait"]
    assert live_address("http://a/b").on_late == "wait"

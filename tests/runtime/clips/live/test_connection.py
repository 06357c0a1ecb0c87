"""What comes over a connection is what is in the file, and what is wrong is said in one sentence."""

from __future__ import annotations

import io
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from attacked import within_limits
from hostile_videos import VIDEOS as HOSTILE
from live_servers import assert_same_windows, http_server, read_live, sends, stalls, tcp_server, transport_stream
from videos import contract, make_late, make_video

from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.limits import PIXELS_VARIABLE
from vivit_export.runtime.clips.live.address import live_address
from vivit_export.runtime.clips.live.connection import connect
from vivit_export.runtime.clips.live.sliding import LiveWindow
from vivit_export.runtime.clips.windows import read_windows

WINDOW: dict[str, Any] = {"window": 0.4, "hop": 0.2}


@pytest.fixture(scope="module")
def shape() -> Contract:
    return contract(4)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("stream")
    return transport_stream(make_video(folder / "a.mp4", codec_options={"g": "10"}))


VIDEOS: dict[str, dict[str, Any]] = {
    "ts": {"codec_options": {"g": "10", "bf": "2"}},
    "mkv": {"variable_rate": True, "audio_seconds": 1.0},
    "mp4": {"container_options": {"movflags": "+faststart"}, "codec_options": {"bf": "2"}},
    "webm": {"codec": "libvpx"},
    "avi": {"codec": "mpeg4", "codec_options": {"bf": "2"}},
    "flv": {},
    "mpg": {"codec": "mpeg2video"},
    "h264": {},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_file_over_tcp_gives_the_windows_of_the_file(tmp_path: Path, shape: Contract, kind: str) -> None:
    path = make_video(tmp_path / f"a.{kind}", **VIDEOS[kind])
    for window, hop, unit in ((0.4, 0.2, "seconds"), (0.3, 0.7, "seconds"), (10, 4, "frames"), (9.0, 1.0, "seconds")):
        rule: Any = {"window": window, "hop": hop, "unit": unit}
        offline = list(read_windows(path, shape, **rule))
        with tcp_server(sends(path.read_bytes())) as address:
            assert_same_windows(list(read_live(address, shape, **rule)), offline)


@pytest.mark.parametrize("options", [{"movflags": "+faststart"}, {}], ids=["index first", "index last"])
def test_a_file_over_http_gives_the_windows_of_the_file(
    tmp_path: Path, shape: Contract, options: dict[str, str]
) -> None:
    path = make_video(tmp_path / "a.mp4", size=(320, 240), container_options=options)
    with http_server({"/a.mp4": path.read_bytes()}) as server:
        live = list(read_live(f"{server}/a.mp4", shape, **WINDOW))
    assert_same_windows(live, list(read_windows(path, shape, **WINDOW)))


def test_recordings_that_were_joined_follow_each_other(tmp_path: Path, shape: Contract, stream: bytes) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(stream * 2)
    with tcp_server(sends(stream * 2)) as address:
        live = list(read_live(address, shape, **WINDOW))
    assert_same_windows(live, list(read_windows(path, shape, **WINDOW)))


def test_frames_come_over_udp(shape: Contract, stream: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(stream)
    with av.open(str(path)) as source:
        packets = [(float(p.dts * p.time_base), p) for p in source.demux(video=0) if p.dts is not None and p.size]
        port, done = _free_udp_port(), threading.Event()

        def send() -> None:
            time.sleep(0.3)
            with av.open(f"udp://127.0.0.1:{port}?pkt_size=1316", "w", format="mpegts") as target:
                added = target.add_stream_from_template(source.streams.video[0])
                for _, packet in packets:
                    packet.stream = added
                    target.mux(packet)
                    time.sleep(0.02)
            done.set()

        threading.Thread(target=send, daemon=True).start()
        live: list[LiveWindow] = []
        with pytest.raises(ClipError, match=r"udp://127.0.0.1:\d+ sent nothing for 1 s"):
            live.extend(read_live(f"udp://127.0.0.1:{port}", shape, timeout=1.0, **WINDOW))
        done.wait(5)
    offline = list(read_windows(path, shape, **WINDOW))
    assert len(live) >= len(offline) - 1  # whether the very last frame of a stream without an end is whole is not known
    for one, other in zip(live[: len(offline) - 1], offline, strict=False):
        np.testing.assert_array_equal(one.frames, other.frames)


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# --- what may be opened ------------------------------------------------------------------------


PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n{}\n#EXT-X-ENDLIST\n"


def test_a_playlist_that_the_user_typed_is_followed_over_http(tmp_path: Path, shape: Contract, stream: bytes) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(stream)
    with http_server({"/a.m3u8": PLAYLIST.format("b.ts").encode(), "/b.ts": stream}) as server:
        live = list(read_live(f"{server}/a.m3u8", shape, **WINDOW))
    assert_same_windows(live, list(read_windows(path, shape, **WINDOW)))


@pytest.mark.parametrize("form", ["file://{}", "{}", "crypto+file://{}", "concat:{}", "subfile,,start,0,end,0,,:{}"])
def test_a_playlist_never_opens_a_file(tmp_path: Path, shape: Contract, stream: bytes, form: str) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(stream)
    with http_server({"/a.m3u8": PLAYLIST.format(form.format(path)).encode()}) as server, pytest.raises(ClipError):
        list(read_live(f"{server}/a.m3u8", shape, timeout=2.0))


def test_what_is_not_named_a_playlist_opens_no_other_address(shape: Contract, stream: bytes) -> None:
    asked: list[str] = []
    playlist = PLAYLIST.format("b.ts").encode()
    with http_server({"/a.mp4": playlist, "/b.ts": stream}, asked) as server:
        with pytest.raises(ClipError, match="sends no video of a kind that is read here"):
            list(read_live(f"{server}/a.mp4", shape))
        with tcp_server(sends(PLAYLIST.format(f"{server}/b.ts").encode())) as address, pytest.raises(ClipError):
            list(read_live(address, shape))
    assert set(asked) == {"/a.mp4"}


# --- what is wrong -----------------------------------------------------------------------------


def fault(address: str, shape: Contract, **given: Any) -> str:
    since = time.monotonic()
    with pytest.raises(ClipError) as raised:
        list(read_live(address, shape, **{"timeout": 1.0, **given}))
    assert time.monotonic() - since < 20
    assert str(raised.value).startswith((address, "the clock of", "there is no")) and "\n" not in str(raised.value)
    return str(raised.value)


def test_an_address_that_refuses(shape: Contract) -> None:
    for scheme, path in (("tcp", ""), ("http", "/a.mp4"), ("rtsp", "/a")):
        assert "cannot be opened (Connection refused)" in fault(f"{scheme}://127.0.0.1:9{path}", shape)


def test_a_page_that_is_not_there(shape: Contract) -> None:
    with http_server({}) as server:
        assert "cannot be opened (Server returned 404 Not Found)" in fault(f"{server}/a.mp4", shape)


def test_a_device_that_is_not_there(shape: Contract) -> None:
    assert "there is no device /dev/video4321; connect the camera" in fault("/dev/video4321", shape)


def test_rubbish(shape: Contract) -> None:
    # The same bytes each time: of random ones, some begin as a container does.
    with tcp_server(sends(random.Random(0).randbytes(8 << 20))) as address:
        assert "sends no video of a kind that is read here" in fault(address, shape)


@pytest.mark.parametrize("name", ["twelve-frames-of-16000.mov", "declares-64-holds-16000.mov", "grows-later.mov"])
def test_frames_that_would_fill_the_memory(shape: Contract, tmp_path: Path, name: str) -> None:
    HOSTILE[name](tmp_path / name)
    with http_server({"/a.mp4": (tmp_path / name).read_bytes()}) as server, within_limits():
        said = fault(f"{server}/a.mp4", shape)
    assert "more than 33554432 pixels" in said


def test_a_server_that_says_nothing(shape: Contract) -> None:
    for scheme in ("tcp", "http", "rtsp"):
        with tcp_server(stalls(b"")) as address:
            said = fault(address.replace("tcp", scheme) + ("" if scheme == "tcp" else "/a.mp4"), shape)
        assert "sent no video within 1 s" in said or "sends no video" in said


def test_a_server_that_stalls(shape: Contract, stream: bytes) -> None:
    with tcp_server(stalls(stream[: len(stream) // 2])) as address:
        said = fault(address, shape)
    assert "sent nothing for 1 s" in said or "sent no video within 1 s" in said


def test_rubbish_after_a_good_beginning(shape: Contract, stream: bytes) -> None:
    with tcp_server(sends(stream + os.urandom(1 << 20) + stream)) as address:
        assert list(read_live(address, shape))  # damaged frames are left out


def test_no_key_frame(shape: Contract, tmp_path: Path) -> None:
    """All that is sent refers to a picture that was sent before: nothing can be shown."""
    target = io.BytesIO()
    path = make_video(tmp_path / "a.mp4", codec_options={"g": "250", "sc_threshold": "0"})
    with av.open(str(path)) as old, av.open(target, "w", format="mpegts") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size and not packet.is_keyframe:
                packet.stream = stream
                new.mux(packet)

    def serve(client: socket.socket) -> None:
        while True:
            client.sendall(target.getvalue())

    with tcp_server(serve) as address:
        said = fault(address, shape, timeout=2.0)  # a busy machine may not get to read for a second
    assert "sends data but no picture for 6 s: no key frame came" in said or "sends no video" in said


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_key_frame_that_comes_late(shape: Contract, tmp_path: Path, codec: str) -> None:
    """The size of its pictures is not known before that."""
    whole, late = make_late(tmp_path, codec=codec)
    with tcp_server(sends(late.read_bytes())) as address:
        (got,) = read_live(address, shape, window=50, hop=50, unit="frames")
    np.testing.assert_array_equal(got.frames, list(read_windows(whole, shape, window=50, unit="frames"))[5].frames)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_key_frame_that_comes_late_and_is_too_large(
    shape: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    late = make_late(tmp_path, (160, 120), codec)[1].read_bytes()
    monkeypatch.setattr("vivit_export.runtime.clips.video.container.ALIGNMENT_PIXELS", 0)
    monkeypatch.setenv(PIXELS_VARIABLE, "10000")
    with tcp_server(sends(late)) as address:
        assert "has frames of no size, or of more than 10000 pixels" in fault(address, shape)


def test_frames_of_another_size(shape: Contract, stream: bytes, tmp_path: Path) -> None:
    other = transport_stream(make_video(tmp_path / "b.mp4", size=(96, 80)))
    with tcp_server(sends(stream + other)) as address:
        assert "changes its frame size from 64x48 to 96x80" in fault(address, shape)


def test_a_clock_that_jumps(shape: Contract, tmp_path: Path) -> None:
    flv = make_video(tmp_path / "a.flv").read_bytes()
    for data, way in ((_with_gap(tmp_path), "ahead by 360"), (flv + flv[13:], "back")):
        with tcp_server(sends(data)) as address:
            assert f"jumps {way}" in fault(address, shape)


def _with_gap(folder: Path) -> bytes:
    """A transport stream whose second half comes 360 s later."""
    target = io.BytesIO()
    with av.open(str(make_video(folder / "a.mp4"))) as old, av.open(target, "w", format="mpegts") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            if number >= 20 and packet.pts is not None and packet.dts is not None and packet.duration is not None:
                packet.pts, packet.dts = (time + 9000 * packet.duration for time in (packet.pts, packet.dts))
            packet.stream = stream
            new.mux(packet)
    return target.getvalue()


def test_a_connection_says_when_frames_arrived(stream: bytes) -> None:
    stop = threading.Event()
    with (
        tcp_server(sends(stream, seconds=1.0)) as address,
        connect(live_address(address), 5.0, stop) as connection,
    ):
        frames = list(connection.frames(lambda: None))
    assert [round(frame.seconds * 25) for frame in frames] == [*range(40)]
    arrived = [frame.arrived for frame in frames]  # those of B frames after the frames that they refer to
    assert 0.1 < max(arrived) - min(arrived) < 5
    assert connection.end_seconds == pytest.approx(1.6)

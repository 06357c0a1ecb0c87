"""Parts of playlists: fetched by rules, and only from servers whose certificate is trusted."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from live_servers import assert_same_windows, http_server, read_live, transport_stream
from tls_proxy import make_certificate, tls_proxy
from videos import contract, make_video

from vivit_export.errors import ClipError
from vivit_export.runtime.clips.windows import Window, read_windows

HEAD = "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:2\n"
END = "#EXT-X-ENDLIST\n"
SHAPE = contract(4)


def playlist(*parts: str, before: str = "") -> bytes:
    """A playlist of parts that each last 0.8 s."""
    return (HEAD + before + "".join(f"#EXTINF:0.8,\n{part}\n" for part in parts) + END).encode()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A transport stream."""
    options = {"g": "10", "bf": "0"}
    return transport_stream(make_video(tmp_path_factory.mktemp("hls") / "a.mp4", codec_options=options))


@pytest.fixture
def expected(tmp_path: Path, whole: bytes) -> list[Window]:
    path = tmp_path / "whole.ts"
    path.write_bytes(whole)
    return list(read_windows(path, SHAPE, window=0.4, hop=0.2))


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A certificate that this machine trusts, and its key."""
    made = make_certificate(tmp_path, "IP:127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(made[0]))
    return made


def port_of(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def halves(stream: bytes) -> tuple[bytes, bytes]:
    """Cut between packets of 188 bytes."""
    middle = len(stream) // 376 * 188
    return stream[:middle], stream[middle:]


def test_parts_follow_each_other(whole: bytes, expected: list[Window]) -> None:
    first, second = halves(whole)
    files = {"/a.m3u8": playlist("1.ts", "2.ts"), "/1.ts": first, "/2.ts": second}
    with http_server(files) as server:
        assert_same_windows(list(read_live(f"{server}/a.m3u8", SHAPE)), expected)


def test_a_playlist_that_grows_is_read_again(whole: bytes, expected: list[Window]) -> None:
    first, second = halves(whole)
    asked: list[str] = []
    files = {"/a.m3u8": playlist("1.ts").removesuffix(END.encode()), "/1.ts": first, "/2.ts": second}

    def grow() -> None:
        while asked.count("/a.m3u8") < 2:
            time.sleep(0.05)
        files["/a.m3u8"] = playlist("1.ts", "2.ts")

    threading.Thread(target=grow, daemon=True).start()
    with http_server(files, asked) as server:
        assert_same_windows(list(read_live(f"{server}/a.m3u8", SHAPE)), expected)
    assert asked.count("/1.ts") == 1


def test_parts_may_lie_in_one_file(whole: bytes, expected: list[Window]) -> None:
    first, second = map(len, halves(whole))
    ranges = f"#EXT-X-BYTERANGE:{first}@0\n#EXTINF:0.8,\na.ts\n#EXT-X-BYTERANGE:{second}@{first}\n"
    with http_server({"/a.m3u8": playlist("a.ts", before=ranges), "/a.ts": whole}) as server:
        assert_same_windows(list(read_live(f"{server}/a.m3u8", SHAPE)), expected)


def test_over_tls(trusted: tuple[Path, Path], whole: bytes, expected: list[Window]) -> None:
    with (
        http_server({"/a.m3u8": playlist("a.ts"), "/a.ts": whole}) as server,
        tls_proxy(port_of(server), *trusted) as port,
    ):
        assert_same_windows(list(read_live(f"https://127.0.0.1:{port}/a.m3u8", SHAPE)), expected)


def test_a_part_from_a_server_that_is_not_trusted(trusted: tuple[Path, Path], tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other", "IP:127.0.0.1")
    files = {"/a.ts": whole}
    with (
        http_server(files) as server,
        tls_proxy(port_of(server), *trusted) as port,
        tls_proxy(port_of(server), *other) as false_port,
    ):
        files["/a.m3u8"] = playlist(f"https://127.0.0.1:{false_port}/a.ts")
        for address in (f"https://127.0.0.1:{port}", server):
            with pytest.raises(ClipError, match=rf"the certificate of https://127.0.0.1:{false_port}/a.ts is not tru"):
                list(read_live(f"{address}/a.m3u8", SHAPE))


def test_nothing_leads_from_tls_to_what_anybody_may_send(trusted: tuple[Path, Path], whole: bytes) -> None:
    files = {"/a.ts": whole}
    with http_server(files) as server, tls_proxy(port_of(server), *trusted) as port:
        files["/a.m3u8"] = playlist(f"{server}/a.ts")
        with pytest.raises(ClipError, match=rf"leads to {server}/a.ts, but may only lead to https://; send all of it"):
            list(read_live(f"https://127.0.0.1:{port}/a.m3u8", SHAPE))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("1.ts", r"/1.ts answers 404 Not Found; check the playlist"),
        ("http://127.0.0.1:1/1.ts", r"http://127.0.0.1:1/1.ts cannot be read \(.*refused\)"),
    ],
)
def test_a_part_that_is_not_there(whole: bytes, lines: str, reason: str) -> None:
    with (
        http_server({"/a.m3u8": playlist("a.ts", lines), "/a.ts": whole}) as server,
        pytest.raises(ClipError, match=rf"^{server}/a.m3u8: .*{reason}"),
    ):
        list(read_live(f"{server}/a.m3u8", SHAPE))


def test_encrypted_parts(whole: bytes) -> None:
    key = '#EXT-X-KEY:METHOD=AES-128,URI="key",IV=0x00000000000000000000000000000001\n'
    with (
        http_server({"/a.m3u8": playlist("a.ts", before=key), "/a.ts": whole, "/key": b"0" * 16}) as server,
        pytest.raises(ClipError, match=r"is encrypted \(AES-128\), which is not read here"),
    ):
        list(read_live(f"{server}/a.m3u8", SHAPE))

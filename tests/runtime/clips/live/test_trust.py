"""Only servers whose certificate is trusted are believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_servers import assert_same_windows, http_server, read_live, tcp_server
from tls_proxy import make_certificate, tls_proxy
from videos import contract, make_video

from vivit_export.errors import ClipError
from vivit_export.runtime.clips.live import trust
from vivit_export.runtime.clips.live.trust import authorities, certificate_problem
from vivit_export.runtime.clips.windows import read_windows

SHAPE = contract(4)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "a.mkv", codec_options={"g": "10", "bf": "0"})


@pytest.mark.parametrize(
    ("names", "is_known", "problem"),
    [
        ("IP:127.0.0.1", True, None),
        ("IP:127.0.0.1", False, "self-signed certificate"),
        ("IP:127.0.0.2", True, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
    ids=["trusted", "of nobody", "of another"],
)
def test_a_certificate_is_looked_at(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, is_known: bool, problem: str | None
) -> None:
    made = make_certificate(tmp_path, names)
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(made[0]))
    with http_server({"/a.mkv": video.read_bytes()}) as server, tls_proxy(int(server.split(":")[2]), *made) as port:
        address = f"https://127.0.0.1:{port}/a.mkv"
        if problem is None:
            live = list(read_live(address, SHAPE))
            assert_same_windows(live, list(read_windows(video, SHAPE, window=0.4, hop=0.2)))
            return
        with pytest.raises(ClipError) as caught:
            list(read_live(address, SHAPE))
    assert caught.value.sentence.startswith(f"the certificate of {address} is not trusted ({problem}")
    assert caught.value.sentence.endswith("or set SSL_CERT_FILE to a file with the certificate that you trust")


def test_the_machines_own_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Python's place first, then the usual ones; without any, nobody is believed."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing"))
    usual = tmp_path / "usual.crt"
    usual.touch()
    monkeypatch.setattr(trust, "_USUAL", (str(tmp_path / "none"), str(usual)))
    assert authorities() == str(usual)
    monkeypatch.setattr(trust, "_USUAL", ())
    assert authorities() == ""


def test_another_reason_is_not_a_certificates() -> None:
    with tcp_server(lambda client: None) as server:
        port = server.split(":")[2]
    assert certificate_problem(f"https://127.0.0.1:{port}/a", 1.0) is None
    assert certificate_problem("http://127.0.0.1/a", 1.0) is None

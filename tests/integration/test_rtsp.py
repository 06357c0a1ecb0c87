"""Live video from GStreamer's RTSP server, which stalls, dies and comes back."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from capabilities import fetched
from live_servers import read_live
from rtsp_server import rtsp_server
from tls_proxy import make_certificate, tls_proxy
from videos import contract, frame_numbers, make_video

from vivit_export.errors import ClipError
from vivit_export.runtime.clips.live.sliding import LiveWindow
from vivit_export.runtime.clips.windows import read_windows


@pytest.fixture(scope="module")
def gstreamer() -> Path:
    return fetched("fetch_gstreamer.py", "gstreamer")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"g": "10", "bf": "0"}
    return make_video(tmp_path_factory.mktemp("video") / "a.mp4", codec_options=options)


def test_the_windows_of_the_file(gstreamer: Path, video: Path, tmp_path: Path) -> None:
    shape = contract(4)
    with rtsp_server(gstreamer, video, tmp_path) as (address, _):
        live = list(read_live(address, shape, window=0.4, hop=0.2))
    offline = list(read_windows(video, shape, window=0.4, hop=0.2))
    assert [(w.first_frame, w.end_frame) for w in live] == [(w.first_frame, w.end_frame) for w in offline]
    for one, other in zip(live, offline, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)


def test_over_tls_only_from_a_server_that_is_trusted(
    gstreamer: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, "IP:127.0.0.1")
    with (
        rtsp_server(gstreamer, video, tmp_path) as (address, _),
        tls_proxy(int(address.split(":")[2].split("/")[0]), certificate, key) as port,
    ):
        secure = f"rtsps://127.0.0.1:{port}/live"
        with pytest.raises(ClipError, match=r"the certificate of rtsps://.* is not trusted \(self-signed certificate"):
            list(read_live(secure, contract(4)))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert len(list(read_live(secure, contract(4)))) == len(
            list(read_windows(video, contract(4), window=0.4, hop=0.2))
        )


def test_what_is_not_there(gstreamer: Path, video: Path, tmp_path: Path) -> None:
    with rtsp_server(gstreamer, video, tmp_path) as (address, _), pytest.raises(ClipError, match="404 Not Found"):
        list(read_live(address.replace("/live", "/dead"), contract(4)))


def test_a_server_that_stalls_dies_and_comes_back(gstreamer: Path, video: Path, tmp_path: Path) -> None:
    shape, notes, found = contract(4), list[str](), list[LiveWindow]()
    with rtsp_server(gstreamer, video, tmp_path) as (address, process):
        port = int(address.split(":")[2].split("/")[0])
        windows = read_live(address, shape, window=0.2, hop=0.2, timeout=1.0, reconnect=20.0, notes=notes)
        found += [next(windows), next(windows)]
        process.send_signal(signal.SIGSTOP)
        while not notes:
            found.append(next(windows))
            if len(found) > 8:
                break
        process.kill()
        process.wait()
        with rtsp_server(gstreamer, video, tmp_path, port) as _:
            while found[-1].connection == 0:
                found.append(next(windows))
        windows.close()
    assert "lost rtsp://" in notes[0] and notes[0].endswith("connecting again")
    assert found[-1].connection == 1 and found[-1].first_frame == 0
    assert frame_numbers(found[-1].frames)[0] == 0

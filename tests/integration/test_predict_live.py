"""``vivit predict`` on live video: a line per window, spans, and an end within a second."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from bundles import Bundles
from command_line import Cli, error_of
from console import BIN
from live_servers import sends, stalls, tcp_server, transport_stream
from safetensors import safe_open

from vivit_export.demo import clips_path

pytestmark = pytest.mark.needs_onnxruntime
LEFT = clips_path() / "left_320x240_25fps.mp4"
QUICK = ("--engine", "onnxruntime-cpu", "-q")
WINDOW = ("--window", "1", "--hop", "0.5")


@pytest.fixture(scope="module")
def bundle(bundles: Bundles) -> Path:
    return bundles.demo().path


@pytest.fixture(scope="module")
def stream() -> bytes:
    return transport_stream(LEFT)


def test_the_lines_are_those_of_the_file(cli: Cli, bundle: Path, stream: bytes) -> None:
    offline = [json.loads(s) for s in cli("predict", bundle, LEFT, *WINDOW, "--json", *QUICK).stdout.splitlines()]
    with tcp_server(sends(stream)) as address:
        told = cli("predict", bundle, address, *WINDOW, "--reconnect", "0", *QUICK).stdout.splitlines()
    live = [json.loads(line) for line in told]
    assert [line["start_seconds"] for line in live] == [line["start_seconds"] for line in offline]
    for one, other in zip(live, offline, strict=True):
        assert one["video"] == address and one["latency_seconds"] > 0 and (one["dropped"], one["connection"]) == (0, 0)
        for entry, wanted in zip(one["top"], other["top"], strict=True):
            assert entry["label"] == wanted["label"]
            assert entry["probability"] == pytest.approx(wanted["probability"], abs=1e-5)


@pytest.mark.parametrize("source", ["a file", "live"])
def test_spans(cli: Cli, bundle: Path, stream: bytes, source: str) -> None:
    with tcp_server(*[sends(stream)] * 3) as address:
        video, more = (LEFT, ()) if source == "a file" else (address, ("--reconnect", "0"))
        options = ("--window", "1", "--hop", "0.2", "--spans", *more, *QUICK)
        (line,) = cli("predict", bundle, video, *options, "--format", "jsonl", "--top-k", "2").stdout.splitlines()
        (first, second) = csv.DictReader(
            cli("predict", bundle, video, *options, "--format", "csv", "--top-k", "2").stdout.splitlines()
        )
        shown = cli("predict", bundle, video, *options, "--format", "vtt", "--top-k", "1").stdout
    span = json.loads(line)
    assert (span["label"], span["start_seconds"], span["end_seconds"]) == ("left", 0.0, pytest.approx(2.0))
    assert (first["label"], first["rank"], second["rank"]) == ("left", "1", "2")
    assert shown.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nleft ")


def test_embeddings_of_live_video_are_kept(cli: Cli, bundle: Path, stream: bytes, tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    with tcp_server(sends(stream)) as address:
        cli("predict", bundle, address, *WINDOW, "--reconnect", "0", "--embedding", path, *QUICK)
    with safe_open(path, "np") as found:
        assert found.get_tensor("span_seconds").tolist()[0] == [0, 1] and found.metadata() == {"source": address}
        assert found.get_tensor("embedding").shape == (3, 128)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("rtsp://a/b",), "live video is predicted window by window; give --window SECONDS"),
        (("rtsp://a/b", LEFT, *WINDOW), "rtsp://a/b is live video, which is predicted alone"),
        (("rtsp://a/b", *WINDOW, "--readers", "2"), "--readers is for files; leave it out for live video"),
        (("rtsp://a/b", *WINDOW, "--decode", "full"), "--decode is for files; leave it out for live video"),
        (("tcp://a", *WINDOW), "'tcp://a' names no port; write tcp://HOST:PORT"),
        (("rtsp://a/b", *WINDOW, "--timeout", "0"), "--timeout 0 must be a number of seconds, 0.1 or more"),
        (("rtsp://a/b", *WINDOW, "--reconnect", "-1"), "--reconnect -1 must be a number of seconds, 0 or more"),
        ((LEFT, "--timeout", "5"), "--timeout is for live video"),
        ((LEFT, "--on-late", "drop"), "--on-late is for live video"),
        ((LEFT, "--spans"), "--spans joins windows; give --window too"),
        ((LEFT, *WINDOW, "--span-on", "0.4"), "--span-on is for spans; give --spans too"),
        ((LEFT, *WINDOW, "--spans", "--span-off", "0.9"), "--span-off 0.9 must be a score from 0 to --span-on"),
        ((LEFT, *WINDOW, "--format", "vtt"), "--format vtt shows spans; give --spans too"),
        ((LEFT, LEFT, *WINDOW, "--spans", "--format", "vtt"), "--format vtt is for the captions of one video"),
    ],
)
def test_options_that_make_no_sense(cli: Cli, bundle: Path, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in error_of(cli("predict", bundle, *arguments, *QUICK, code=2))


def test_what_cannot_be_read(cli: Cli, bundle: Path) -> None:
    for source, said in (
        ("tcp://127.0.0.1:9", "tcp://127.0.0.1:9 cannot be opened (Connection refused)"),
        ("/dev/video4321", "there is no device /dev/video4321"),
    ):
        assert said in error_of(cli("predict", bundle, source, *WINDOW, *QUICK, code=3))


def command(bundle: Path, source: str, *options: str) -> list[str]:
    return [str(BIN / "vivit"), "predict", str(bundle), source, *WINDOW, *QUICK, *options]


def run(bundle: Path, source: str, *options: str) -> subprocess.Popen[str]:
    command_line = command(bundle, source, *options)
    return subprocess.Popen(
        command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("way", ["piped", "redirected"])
def test_standard_input(cli: Cli, bundle: Path, way: str) -> None:
    """A transport stream through a pipe; an MP4 file with its index anywhere, because a file can be searched."""
    offline = cli("predict", bundle, LEFT, *WINDOW, "--json", *QUICK).stdout.splitlines()
    if way == "piped":
        done = subprocess.run(command(bundle, "-"), input=transport_stream(LEFT), capture_output=True, check=False)
    else:
        with LEFT.open("rb") as file:
            done = subprocess.run(command(bundle, "-"), stdin=file, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    for line, wanted in zip(done.stdout.splitlines(), offline, strict=True):
        one, other = json.loads(line), json.loads(wanted)
        assert one["video"] == "standard input" and one["start_seconds"] == other["start_seconds"]
        assert one["top"][0]["label"] == other["top"][0]["label"] == "left"


def test_standard_input_that_is_empty(bundle: Path) -> None:
    out, err = (process := run(bundle, "-")).communicate(timeout=60)
    assert (process.returncode, out, err) == (3, "", "error: standard input is empty; pipe a video into it\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_within_a_second_though_the_server_stalls(
    bundle: Path, stream: bytes, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "e.safetensors"
    with tcp_server(stalls(stream)) as address:
        process = run(bundle, address, "--timeout", "60", "--embedding", str(path))
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]  # flushed, though nothing follows
        assert [json.loads(line)["start_seconds"] for line in lines] == [0.0, 0.5]
        since = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - since < 3  # a second, and what a busy machine takes to end Python
    assert (process.returncode, out) == (130, "")
    assert err == f"error: interrupted; windows until then are predicted, and {path} holds 2 embeddings\n"
    with safe_open(path, "np") as found:
        assert len(found.get_tensor("embedding")) == 2

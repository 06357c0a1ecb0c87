"""Servers of live video on loopback, which stall, die and come back as a test wants."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from vivit_export.contract import Contract
from vivit_export.runtime.clips.live.address import OnLate, live_address
from vivit_export.runtime.clips.live.reader import LiveReader, LiveRule
from vivit_export.runtime.clips.live.sliding import LiveWindow
from vivit_export.runtime.clips.windows import Unit, Window, WindowRule

Serve = Callable[[socket.socket], None]
STALL_SECONDS = 60.0


def sends(data: bytes, *, seconds: float = 0.0, then: float = 0.0) -> Serve:
    """Send data within so many seconds, wait, and close."""

    def serve(client: socket.socket) -> None:
        pieces = max(1, round(seconds / 0.02))
        size = max(1, -(-len(data) // pieces))
        for start in range(0, len(data), size):
            client.sendall(data[start : start + size])
            if seconds:
                time.sleep(0.02)
        time.sleep(then)

    return serve


def stalls(data: bytes) -> Serve:
    """Send data, then nothing, and keep the connection."""
    return sends(data, then=STALL_SECONDS)


@contextmanager
def tcp_server(*connections: Serve, port: int = 0) -> Iterator[str]:
    """The address of a server that serves so many connections, and then refuses."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    clients: list[socket.socket] = []

    def answer(client: socket.socket, serve: Serve) -> None:
        with suppress(OSError), closing(client):
            serve(client)

    def work() -> None:
        with suppress(OSError):
            for serve in connections:
                client, _ = listening.accept()
                clients.append(client)
                threading.Thread(target=answer, args=(client, serve), daemon=True).start()
        listening.close()

    threading.Thread(target=work, daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()
        for client in clients:
            client.close()


@contextmanager
def http_server(answers: dict[str, bytes], asked: list[str] | None = None) -> Iterator[str]:
    """The address of a server of files, in parts too; ``asked`` takes the paths that were asked for."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if asked is not None:
                asked.append(self.path)
            data = answers.get(self.path)
            if data is None:
                self.send_error(404)
                return
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if first else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - first))
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(data[first:])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def read_live(
    source: Any,
    contract: Contract,
    *,
    window: float = 0.4,
    hop: float | None = 0.2,
    unit: Unit = "seconds",
    on_late: OnLate = "wait",
    timeout: float = 5.0,
    reconnect: float = 0.0,
    notes: list[str] | None = None,
) -> Generator[LiveWindow, None, None]:
    """The windows of live video, as a session would take them."""
    found = live_address(source) if isinstance(source, str) else source
    name = found.name if isinstance(source, str) else "the stream"
    rule = LiveRule(WindowRule(window, hop, unit), on_late, timeout, reconnect)
    with LiveReader(found, name, contract, rule, (notes if notes is not None else []).append) as reader:
        for windows, _ in reader.batches(4):
            yield from windows


def assert_same_windows(live: Sequence[Window], offline: Sequence[Window]) -> None:
    """The same windows, bit for bit."""
    assert [(w.first_frame, w.end_frame) for w in live] == [(w.first_frame, w.end_frame) for w in offline]
    for one, other in zip(live, offline, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_allclose(
            (one.start_seconds, one.end_seconds), (other.start_seconds, other.end_seconds), atol=2e-6
        )


def transport_stream(path: Path) -> bytes:
    """The packets of a video as MPEG-TS, which can be joined and cut anywhere."""
    import io

    import av

    target = io.BytesIO()
    with av.open(str(path)) as old, av.open(target, "w", format="mpegts") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return target.getvalue()

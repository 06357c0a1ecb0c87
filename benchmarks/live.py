"""Measure live video: 720p at 30 frames per second over TCP, windows of 1 s every 0.2 s.

A process of its own sends an H.264 transport stream in real time. What counts: whether a frame or a window was lost,
and how long after the arrival of its last frame the prediction of a window was there. That includes waiting for the
next frame, which says that the window is complete: 33 ms at this rate.

    vivit-export demo --fp32 --target onnx -o out/demo
    python benchmarks/live.py out/demo
"""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import socket
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
from common import environment, peak_bytes, write_results

import vivit_export as ve

FPS, WIDTH, HEIGHT = 30, 1280, 720
WINDOW, HOP = 1.0, 0.2


def transport_stream(width: int, height: int, fps: int, frames: int, preset: str) -> Iterator[bytes]:
    """Encode a moving picture; yield the piece of the stream that each frame adds, and at last what is left."""
    target = io.BytesIO()
    y, x = np.mgrid[:height, :width]
    with av.open(target, "w", format="mpegts") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": preset, "tune": "zerolatency", "g": str(2 * fps)}
        for number in range(frames):
            gray = ((x + 7 * number) // 3 % 256).astype(np.uint8) // 2 + ((y + 3 * number) // 2 % 128).astype(np.uint8)
            picture = np.repeat(gray[:, :, None], 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            yield _taken(target)
        container.mux(stream.encode())
    yield _taken(target)


def encode(seconds: int) -> list[tuple[float, bytes]]:
    """Return when each piece of the stream is due, and the piece."""
    pieces = transport_stream(WIDTH, HEIGHT, FPS, seconds * FPS, "veryfast")
    return [(number / FPS, piece) for number, piece in enumerate(pieces)]


def _taken(target: io.BytesIO) -> bytes:
    data = target.getvalue()
    target.seek(0)
    target.truncate()
    return data


def serve(seconds: int, tell: Connection) -> None:
    """Send the stream once, in real time."""
    pieces = encode(seconds)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        tell.send(listening.getsockname()[1])
        client, _ = listening.accept()
        with client:
            begin = time.monotonic()
            for due, piece in pieces:
                time.sleep(max(0.0, begin + due - time.monotonic()))
                client.sendall(piece)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seconds", default=30, show_default=True, help="Length of the stream.")
def main(bundle: Path, seconds: int) -> None:
    """Write benchmarks/results/live.json."""
    facts: dict[str, Any] = {"environment": environment()}
    told, tell = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(seconds, tell), daemon=True)
    server.start()
    port, notes = told.recv(), list[str]()
    rule: Any = {"window": WINDOW, "hop": HOP, "on_late": "drop", "reconnect": 0, "note": notes.append}
    with ve.open_session(bundle) as session:
        before = resource.getrusage(resource.RUSAGE_SELF)
        results = list(ve.stream(session, f"tcp://127.0.0.1:{port}", **rule))
        after = resource.getrusage(resource.RUSAGE_SELF)
        facts["engine"] = session.details
    server.join(10)
    latencies = 1000 * np.array([result.latency_seconds for result in results])
    facts |= {
        "stream": f"{WIDTH}x{HEIGHT} H.264, {FPS} frames per second, {seconds} s",
        "window_seconds": WINDOW,
        "hop_seconds": HOP,
        "frames_sent": seconds * FPS,
        "frames_read": max(result.frames[1] for result in results),
        "windows": len(results),
        "windows_dropped": sum(result.dropped for result in results),
        "remarks": notes,
        "latency_ms": {
            "p50": round(float(np.percentile(latencies, 50)), 1),
            "p95": round(float(np.percentile(latencies, 95)), 1),
            "max": round(float(latencies.max()), 1),
        },
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_bytes": peak_bytes(),
        "load_after": round(os.getloadavg()[0], 2),
    }
    print({key: value for key, value in facts.items() if key != "environment"})
    print(write_results("live", facts))


if __name__ == "__main__":
    main()

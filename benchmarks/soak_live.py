"""Predict live video for half an hour, with a server that hangs up now and then: no window lost, no growth of memory.

    vivit-export demo --fp32 --target onnx -o out/demo
    python benchmarks/soak_live.py out/demo

A process of its own sends an H.264 transport stream in real time over TCP, and ends the connection every few minutes.
Results are written to ``results/reliability/live.json``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from common import RESULTS, environment, write_results
from live import transport_stream
from soak import growth_of, resident_bytes

import vivit_export as ve
from vivit_export.errors import ClipError
from vivit_export.runtime.stream import StreamPrediction

FPS, WIDTH, HEIGHT = 15, 320, 180
WINDOW, HOP = 1.0, 0.2
LOOK_SECONDS = 1.0


def serve(seconds: float, connections: int, tell: Connection) -> None:
    """Send a stream over one connection after the other, each for its share of the time; tell the frames of each."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        tell.send(listening.getsockname()[1])
        for _ in range(connections):
            client, _ = listening.accept()
            with client:
                tell.send(send(client, seconds / connections))


def send(client: socket.socket, seconds: float) -> int:
    """Encode and send pictures in real time; return how many."""
    frames, begin = round(seconds * FPS), time.monotonic()
    for number, piece in enumerate(transport_stream(WIDTH, HEIGHT, FPS, frames, "ultrafast"), 1):
        client.sendall(piece)
        time.sleep(max(0.0, begin + min(number, frames) / FPS - time.monotonic()))
    return frames


def expected_windows(frames: int) -> int:
    """How many windows that many frames have, at a whole number of frames for each hop."""
    window, hop = round(WINDOW * FPS), round(HOP * FPS)
    return max(0, (frames - window) // hop + 1)


class Seen(NamedTuple):
    """What is kept of a result, so that memory does not grow with what is looked at."""

    connection: int
    start_seconds: float
    latency_seconds: float
    dropped: int
    finite: bool

    @classmethod
    def of(cls, result: StreamPrediction) -> Seen:
        """Keep what is looked at."""
        logits = result.prediction.logits
        finite = logits is not None and bool(np.isfinite(logits).all())
        return cls(result.connection, result.span_seconds[0], result.latency_seconds, result.dropped, finite)


def facts(sent: Sequence[int], results: Sequence[Seen], resident: Sequence[int]) -> dict[str, Any]:
    """What is written of a soak."""
    found = [[r for r in results if r.connection == number] for number in range(len(sent))]
    starts = [r.start_seconds for r in results]
    latencies = 1000 * np.array([r.latency_seconds for r in results])
    third = max(1, len(latencies) // 3)
    return {
        "connections": len(sent),
        "frames_sent": sum(sent),
        "windows": len(results),
        "windows_expected": sum(map(expected_windows, sent)),
        "windows_missing": sum(max(0, expected_windows(n) - len(some)) for n, some in zip(sent, found, strict=True)),
        "windows_dropped": sum(r.dropped for r in results),
        "in_order": starts == sorted(starts),
        "finite": all(r.finite for r in results),
        "latency_ms": {
            "first third, p95": round(float(np.percentile(latencies[:third], 95)), 1),
            "last third, p95": round(float(np.percentile(latencies[-third:], 95)), 1),
            "max": round(float(latencies.max()), 1),
        },
        **growth_of(resident),
    }


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--connections", default=6, show_default=True, help="How many, one after the other.")
@click.option(
    "--results", "folder", type=click.Path(path_type=Path), default=RESULTS / "reliability", help="Folder to write to."
)
def main(bundle: Path, minutes: float, connections: int, folder: Path) -> None:
    """Write benchmarks/results/reliability/live.json."""
    content: dict[str, Any] = {"environment": environment(), "minutes": minutes}
    told, tell = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(60 * minutes, connections, tell))
    server.start()
    results, resident, notes, looked = list[Seen](), list[int](), list[str](), 0.0
    with ve.open_session(bundle) as session, contextlib.suppress(ClipError):  # when nobody sends any more
        content["engine"] = session.details
        address = f"tcp://127.0.0.1:{told.recv()}"
        for result in ve.stream(session, address, window=WINDOW, hop=HOP, reconnect=3.0, note=notes.append):
            results.append(Seen.of(result))
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                resident.append(resident_bytes())
    server.join(10)
    sent = [told.recv() for _ in range(connections)]
    content |= facts(sent, results, resident)
    content["environment"]["load_after"] = round(os.getloadavg()[0], 2)
    content["remarks"] = len(notes)
    print({key: value for key, value in content.items() if key != "environment"})
    print(write_results("live", content, folder))


if __name__ == "__main__":
    main()

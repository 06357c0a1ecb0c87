"""Measure a served model under load: requests per second and latency, by the number of requests in flight.

Each request is one clip of random pixels, or one video if the model takes videos. It is sent as soon as another is
answered, so the server always has the given number of requests. The server's own statistics show its batches and queue.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.bench import Machine
from vivit_export.errors import UsageError, option
from vivit_export.progress import Progress, default_progress
from vivit_export.records import JsonObject, to_json
from vivit_export.runtime.bench.run import this_machine
from vivit_export.runtime.bench.worker import random_batch
from vivit_export.runtime.session.backend import Float32
from vivit_export.runtime.session.triton.address import parse_address
from vivit_export.runtime.session.triton.client import TritonBackend
from vivit_export.runtime.session.triton.videos import read_bytes

_CLIPS = 16  # different ones, sent in turn: no cache may answer
_WARMUP_SHARE = 0.1  # of the time, before what is counted: connections, buffers


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What was answered while a number of requests were in flight.

    Attributes:
        requests: that were answered.
        requests_per_second: of them.
        p50_ms: latency of a request in milliseconds, by percentile.
        p95_ms: see above.
        p99_ms: see above.
    """

    requests: int
    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How a served model answers under load.

    Attributes:
        server: server, model and engine, for people.
        request: what one request is: ``clip`` or ``video``.
        client: the machine that sent the requests; note the server's yourself.
        seconds: how long each number of requests was held.
        in_flight: figures by number of requests in flight.
        interrupted: whether Ctrl-C ended the run.
    """

    server: str
    request: str
    client: Machine
    seconds: float
    in_flight: Mapping[str, LoadFigures]
    interrupted: bool

    def to_json(self) -> JsonObject:
        """Return JSON types."""
        data: JsonObject = to_json(self)
        return data


def bench_served(
    address: str,
    *,
    in_flight: Sequence[int] = (1, 8, 32),
    seconds: float = 20.0,
    video: Path | None = None,
    progress: Progress | None = None,
) -> LoadReport:
    """Measure a served model under load.

    Args:
        address: see `vivit_export.runtime.session.triton.address.parse_address`.
        in_flight: numbers of requests to keep under way.
        seconds: how long, for each of these numbers; a tenth more before it is not counted.
        video: what to send to a model that takes videos.
        progress: receives each stage.

    Returns:
        The report; of what was measured until then, if Ctrl-C ended the run.

    Raises:
        UsageError: a number is out of range, or there is no video for a model that takes videos.
        ClipError: the video cannot be read.
        EnvironmentFault: the server is gone, refuses a request, or does not answer in time.
    """
    progress = progress if progress is not None else default_progress()
    if not in_flight or min(in_flight) < 1 or not 0 < seconds < math.inf:
        raise UsageError(f"{option('in_flight')} must be 1 or more, and {option('seconds', seconds)} above 0")
    client, figures, interrupted = this_machine(), {}, False
    backend = TritonBackend(parse_address(address))
    try:
        requests = _requests(backend, video)
        for count in dict.fromkeys(in_flight):
            with progress.stage(f"keep {count} requests in flight for {seconds:g} s"):
                _hold(backend, requests, count, seconds * _WARMUP_SHARE)
                figures[str(count)] = _hold(backend, requests, count, seconds)
    except KeyboardInterrupt:
        interrupted = True
        if not figures:
            raise
    finally:
        backend.close()
    kind = "video" if backend.takes_videos else "clip"
    return LoadReport(backend.details, kind, client, seconds, figures, interrupted)


def _requests(backend: TritonBackend, video: Path | None) -> list[npt.NDArray[Any]]:
    if not backend.takes_videos:
        return list(random_batch(backend.contract, _CLIPS, seed=0)[:, None])
    if video is None:
        raise UsageError(f"this model takes videos; give one with {option('video')}")
    return [read_bytes(video)[None]]


def _hold(backend: TritonBackend, requests: Sequence[npt.NDArray[Any]], in_flight: int, seconds: float) -> LoadFigures:
    """Keep ``in_flight`` requests under way; return what was answered in that time."""
    room = threading.Semaphore(in_flight)
    latencies: list[float] = []
    faults: list[BaseException] = []

    def send(batch: npt.NDArray[Any]) -> None:
        began = time.perf_counter()

        def done(future: Future[dict[str, Float32]]) -> None:
            took = time.perf_counter() - began
            if not future.cancelled():  # as when Ctrl-C closes the connection
                error = future.exception()
                if error is None:
                    latencies.append(took)
                else:
                    faults.append(error)
            room.release()

        backend.submit(batch).add_done_callback(done)

    start, sent = time.perf_counter(), 0
    while not sent or (time.perf_counter() - start < seconds and not faults):
        room.acquire()
        send(requests[sent % len(requests)])
        sent += 1
    for _ in range(in_flight):
        room.acquire()
    elapsed = time.perf_counter() - start
    if faults:
        raise faults[0]
    p50, p95, p99 = (1e3 * float(np.percentile(latencies, p)) for p in (50, 95, 99))
    return LoadFigures(len(latencies), len(latencies) / elapsed, p50, p95, p99)

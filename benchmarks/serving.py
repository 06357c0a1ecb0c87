"""Measure a served model under load: clips per second and latency, by number of requests in flight.

    python benchmarks/serving.py triton://HOST:8001/MODEL --in-flight 1,8,32

Each request is one clip of random pixels, sent as soon as another is answered, so the server always has the given
number of requests. The server's own statistics show its batches and queue. Prints JSON with the client's machine;
note the server's machine yourself. Writes no file.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future

import click
import numpy as np
import numpy.typing as npt
from common import environment

from vivit_export.runtime.session.backend import Float32
from vivit_export.runtime.session.triton.address import parse_address
from vivit_export.runtime.session.triton.client import TritonBackend

_CLIPS = 16  # different ones, sent in turn: no cache may answer


@click.command()
@click.argument("address")
@click.option("--in-flight", default="1,8,32", show_default=True, help="Requests under way at once.")
@click.option("--seconds", default=20.0, show_default=True, help="For each of these.")
def main(address: str, in_flight: str, seconds: float) -> None:
    """Measure the model at ADDRESS."""
    backend = TritonBackend(parse_address(address))
    tensor = backend.contract.io.inputs[0]
    shape = (_CLIPS, 1, *(int(d) for d in tensor.shape[1:]))
    clips = np.random.default_rng(0).integers(0, 256, shape).astype(tensor.dtype)
    results = {}
    for count in map(int, in_flight.split(",")):
        load(backend, clips, count, seconds / 10)  # connections, buffers
        results[str(count)] = load(backend, clips, count, seconds)
    print(json.dumps({"server": backend.details, "client": environment(), "in_flight": results}, indent=2))
    backend.close()


def load(
    backend: TritonBackend, clips: npt.NDArray[np.generic], in_flight: int, seconds: float
) -> dict[str, float | int]:
    """Keep ``in_flight`` requests under way; return what was answered in that time."""
    room, latencies, faults = threading.Semaphore(in_flight), [], []
    start = time.perf_counter()

    def done(sent: float, future: Future[dict[str, Float32]]) -> None:
        error = future.exception()
        if error is None:
            latencies.append(time.perf_counter() - sent)
        else:
            faults.append(error)
        room.release()

    sent = 0
    while time.perf_counter() - start < seconds and not faults:
        room.acquire()
        began = time.perf_counter()
        future = backend.submit(clips[sent % len(clips)])
        future.add_done_callback(lambda future, began=began: done(began, future))  # type: ignore[misc]
        sent += 1
    for _ in range(in_flight):
        room.acquire()
    elapsed = time.perf_counter() - start
    if faults:
        raise click.ClickException(str(faults[0]))
    found = {f"p{p}_ms": round(1e3 * float(np.percentile(latencies, p)), 2) for p in (50, 95, 99)}
    return {"clips_per_second": round(len(latencies) / elapsed, 2), "clips": len(latencies), **found}


if __name__ == "__main__":
    main()

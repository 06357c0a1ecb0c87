"""Ask one session for many things from many threads: no wrong answer, no growth of memory.

    vivit-export demo --fp32 --target onnx -o out/demo
    python benchmarks/soak.py out/demo
    python benchmarks/soak.py out/demo --server

Each request is a batch of random size, of clips whose logits are known; one in a hundred is bad in one of several ways,
and must be refused with a sentence. ``--server`` does the same through a real tritonserver, and then once more with one
clip in each request. Meanwhile clients are killed in the middle of a request, and the server is killed and started
again, which clients may notice only as an error. Results are added to ``results/reliability/soak.json`` and
``soak_server.json``.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import RESULTS, environment, write_results

import vivit_export as ve
from vivit_export.errors import BundleError, ClipError, EnvironmentFault

FOLDER = RESULTS / "reliability"
CLIPS = 32
TOLERANCE = 1e-5  # of the range of all logits: a batch may be summed in another order than a clip alone
SETTLED = 0.2  # of all requests; until then caches fill
SAMPLES = 100

Session = Any  # a session, or what takes its place in a test


@dataclass
class Tally:
    """What came of the requests so far.

    Attributes:
        counts: right, refused, failed (no answer), and faults: wrong, accepted though bad, refused though good.
        clips: clips in right answers.
        worst: largest difference from the known logits, as a share of their range.
        resident: bytes of memory, now and then.
    """

    counts: Counter[str] = field(default_factory=Counter)
    clips: int = 0
    worst: float = 0.0
    resident: list[int] = field(default_factory=list)


class Asker:
    """Makes requests, and knows their answers.

    Args:
        session: what is asked.
        known: a session that is asked for the right answers, clip by clip, before.
        bad_share: how many of the requests are bad.
        most: largest batch.
    """

    def __init__(self, session: Session, known: Session, bad_share: float, most: int) -> None:
        clip = known.contract.clip
        shape = (CLIPS, clip.num_frames, clip.height, clip.width, 3)
        self.clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self.logits = np.concatenate([known.infer(one[None]) for one in self.clips])
        self._session, self._bad_share, self._most = session, bad_share, most
        self.tally, self._lock = Tally(), threading.Lock()

    @property
    def done(self) -> int:
        """Requests that have ended."""
        return sum(self.tally.counts.values())

    def ask(self, rng: np.random.Generator) -> None:
        """Make one request and look at what comes."""
        if rng.random() < self._bad_share:
            self._ask_badly(rng)
            return
        chosen = rng.integers(0, CLIPS, rng.integers(1, self._most + 1))
        try:
            found = self._session.infer(self.clips[chosen])
        except EnvironmentFault:
            self._count("failed")
            return
        except ClipError:
            self._count("refused though good")
            return
        except BundleError:  # the answer is not one to this request: it has another shape, or is not finite
            self._count("wrong")
            return
        off = self.off(found, chosen)
        with self._lock:
            self.tally.worst = max(self.tally.worst, off)
            self.tally.clips += len(chosen)
            self.tally.counts["right" if off <= TOLERANCE else "wrong"] += 1

    def off(self, found: npt.NDArray[Any], chosen: npt.NDArray[Any]) -> float:
        """How far logits are from those known of the chosen clips, as a share of the range of all."""
        known = self.logits[chosen]
        if found.shape != known.shape or not np.isfinite(found).all():
            return float("inf")
        return float(np.abs(found - known).max() / np.ptp(self.logits))

    def _ask_badly(self, rng: np.random.Generator) -> None:
        clips: npt.NDArray[Any] = self.clips[:2]
        bad = (clips.astype(np.float64), clips[:0], clips[:, 1:], clips[..., :2], clips[0], clips[:, :, 1:])
        try:
            self._session.infer(bad[rng.integers(len(bad))])
        except ClipError:
            self._count("refused")
        else:
            self._count("accepted though bad")

    def _count(self, what: str) -> None:
        with self._lock:
            self.tally.counts[what] += 1


def soak(asker: Asker, requests: int, threads: int, resident: Callable[[], int], events: Iterator[None]) -> float:
    """Make requests from threads, look at the memory now and then, and let events happen evenly; return the seconds."""
    start = time.perf_counter()
    begun = iter(range(requests))
    take = threading.Lock()

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while True:
            with take:
                if next(begun, None) is None:
                    return
            asker.ask(rng)

    workers = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(threads)]
    for worker in workers:
        worker.start()
    looked = 0
    while any(worker.is_alive() for worker in workers):
        if asker.done * SAMPLES >= looked * requests:
            asker.tally.resident.append(resident())
            looked += 1
            next(events, None)
        time.sleep(0.005)
    return time.perf_counter() - start


def facts(asker: Asker, seconds: float, threads: int) -> dict[str, Any]:
    """What is written of a soak."""
    return {
        "requests": asker.done,
        "threads": threads,
        "outcomes": dict(sorted(asker.tally.counts.items())),
        "clips": asker.tally.clips,
        "largest_difference_of_range": asker.tally.worst,
        "seconds": round(seconds, 1),
        **growth_of(asker.tally.resident),
    }


def growth_of(resident: Sequence[int]) -> dict[str, Any]:
    """How memory grew: the end of the looks at it over the first that have settled."""
    settled = resident[int(SETTLED * len(resident)) :]
    part = max(1, len(settled) // 8)
    first, last = (float(np.median(some)) for some in (settled[:part], settled[-part:]))
    return {
        "resident_bytes": {"settled": int(first), "end": int(last), "peak": max(resident)},
        "growth": round(last / first - 1, 4),
    }


def resident_bytes(pid: int | str = "self") -> int:
    """Memory of a process, and not of its children."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def resident_by_kind(pid: int | str) -> dict[str, int]:
    """Bytes of a process by kind: its heap and stacks, files, and what it shares with other processes (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (s.partition(":") for s in lines if "Rss" in s)}
    return {"heap": sizes["RssAnon"], "files": sizes["RssFile"], "shared": sizes["RssShmem"]}


@contextmanager
def adding(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Lend the results so far, and write them with what was added."""
    path = folder / f"{name}.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    content["environment"] = environment()
    yield content
    content["environment"]["load_after"] = round(os.getloadavg()[0], 2)
    print(write_results(name, content, folder))


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--server", is_flag=True, help="Ask a real tritonserver.")
@click.option("--requests", default=10_000, show_default=True)
@click.option("--threads", default=8, show_default=True)
@click.option("--bad-share", default=0.01, show_default=True)
@click.option("--batch", "most", default=8, show_default=True, help="Largest batch.")
@click.option(
    "--results", "folder", type=click.Path(path_type=Path), default=RESULTS / "reliability", help="Folder to write to."
)
def main(bundle: Path, server: bool, requests: int, threads: int, bad_share: float, most: int, folder: Path) -> None:
    """Write benchmarks/results/reliability/soak.json, or soak_server.json."""
    with adding(folder, "soak_server" if server else "soak") as content:
        if server:
            from soak_server import soak_server

            content["server"] = soak_server(bundle, requests, threads, bad_share, most)
            content["server_one"] = soak_server(bundle, requests, threads, bad_share, most=1)
            return
        for engine in ("onnxruntime-cpu", "openvino"):
            with ve.open_session(bundle, prefer=engine) as session:
                asker = Asker(session, session, bad_share, most)
                seconds = soak(asker, requests, threads, resident_bytes, iter(()))
                content[engine] = {"engine": session.details} | facts(asker, seconds, threads)
                print(engine, content[engine])


if __name__ == "__main__":
    main()

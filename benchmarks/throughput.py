"""From file to label: how fast videos are read, beside other readers, and what limits it.

    python benchmarks/throughput.py --inputs /tmp/throughput --peer-python /tmp/peers/bin/python

The peers' Python has torch, torchcodec and decord. Videos are made where they are missing (throughput_inputs.py).
Each measurement is a process of its own, whose CPU seconds and peak memory are taken whole, imports included;
contenders take turns, and the fastest of their rounds counts. Where several read the same frames, their SHA-256 is
compared. Clips per second, and the CPU seconds of reading, leave out how long a process takes to start. Writes
``results/throughput.json`` after each section; ``--resume`` goes on after the last one, and ``--only SECTION`` measures
one again, with its own environment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from common import RESULTS, environment, write_results
from throughput_inputs import FPS, KINETICS_SECONDS, LARGE, LONG, Film, encode, make_film, make_kinetics

HERE = Path(__file__).parent
FRAMES = 32
NAME = "throughput"


@dataclass(frozen=True, slots=True)
class Job:
    """What is measured, and on what.

    Attributes:
        inputs: folder of the videos.
        peer_python: of the peers, if there is one.
        rounds: how often contenders take turns.
        films: the long videos.
        kinetics: the short ones, all different.
        files: how many short ones are read; the different ones take turns.
        memory_clips: how many clips the look at the memory takes.
        frame_rate: of each so many frames of a short video, the clip takes one.
        readers: how many read at once, in turns.
    """

    inputs: Path
    peer_python: Path | None
    rounds: int
    films: tuple[Film, ...]
    kinetics: tuple[str, ...]
    files: int
    memory_clips: int
    frame_rate: int
    readers: tuple[int, ...]

    def short(self, **given: Any) -> dict[str, Any]:
        """Return the arguments of a worker that reads the short videos."""
        return {"videos": list(self.kinetics), "count": self.files, **given}


@click.command()
@click.option("--inputs", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the videos.")
@click.option("--peer-python", type=click.Path(path_type=Path), help="A Python with torchcodec and decord.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--files", default=200, show_default=True, help="Short videos to read.")
@click.option("--different", default=20, show_default=True, help="Short videos that differ; they take turns.")
@click.option("--memory-clips", default=10_000, show_default=True, help="Clips while the memory is looked at.")
@click.option("--tiny", is_flag=True, help="Make tiny videos, to try this script out.")
@click.option("--resume", is_flag=True, help="Keep the sections that were measured before.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["long", "short", "workers", "threads", "parts", "memory"]),
    help="These sections alone. Repeatable.",
)
@click.option("--results", "folder", type=click.Path(path_type=Path), default=RESULTS, help="Folder to write to.")
def main(
    inputs: Path,
    peer_python: Path | None,
    rounds: int,
    files: int,
    different: int,
    memory_clips: int,
    tiny: bool,
    resume: bool,
    only: tuple[str, ...],
    folder: Path,
) -> None:
    """Measure."""
    job = prepare(inputs, peer_python, rounds, files, different, memory_clips, tiny)
    path = folder / f"{NAME}.json"
    here = environment()
    results: dict[str, Any] = {"environment": here}
    if (resume or only) and path.exists():
        results = json.loads(path.read_text())
    for name, measure in SECTIONS.items():
        if (only and name not in only) or (resume and name in results and name not in only):
            continue
        start = time.perf_counter()
        results[name] = measure(job)
        if only:
            results["measured_again"] = {**results.get("measured_again", {}), name: here}
        print(f"{name}: {time.perf_counter() - start:.0f} s")
        write_results(NAME, results, folder)
    print(f"wrote {path}")


def prepare(
    inputs: Path, peer_python: Path | None, rounds: int, files: int, different: int, memory_clips: int, tiny: bool
) -> Job:
    """Make the videos that are missing."""
    inputs.mkdir(parents=True, exist_ok=True)
    films: tuple[Film, ...] = (LONG, LARGE)
    if tiny:
        films = tuple(dataclasses.replace(film, size=(160, 96), frames=2 * FPS) for film in films)
    for film in films:
        make_film(inputs, film)
    seconds = 2 if tiny else KINETICS_SECONDS
    kinetics = make_kinetics(inputs, different, seconds=seconds)
    readers = (1, 2) if tiny else (1, 2, 4, 8, 16)
    rate = seconds * FPS // FRAMES
    return Job(inputs, peer_python, rounds, films, tuple(map(str, kinetics)), files, memory_clips, rate, readers)


# --- sections ----------------------------------------------------------------------------------


def long(job: Job) -> dict[str, Any]:
    """32 frames of a long video: spread, the first ones, the middle ones; ours, in full as before, and peers."""
    found: dict[str, Any] = {}
    for film in job.films:
        video = str(job.inputs / film.name)
        samplings = ("uniform", "head", "center") if film.name == LONG.name else ("uniform",)
        for sampling in samplings:
            ours: dict[str, list[str]] = {
                "ours": worker(do="clip", video=video, sampling=sampling, decode="auto"),
                "ours, decoded in full": worker(do="clip", video=video, sampling=sampling, decode="full"),
            }
            peers = _peers(job, video) if sampling == "uniform" else {}
            best = take_turns({**ours, **peers}, job.rounds, once=("ours, decoded in full",))
            found[f"{film.title}, {sampling}"] = {"bytes": os.path.getsize(video), "contenders": best}
    return found


def _peers(job: Job, video: str) -> dict[str, list[str]]:
    if job.peer_python is None:
        return {}
    script = str(HERE / "throughput_peer.py")
    return {name: [str(job.peer_python), script, name, video, str(FRAMES)] for name in ("torchcodec", "decord")}


def short(job: Job) -> dict[str, Any]:
    """Many short videos: to tensors, and to labels with an engine that takes no time."""
    cores = os.cpu_count() or 1
    contenders = {
        "decoder alone": worker(**job.short(do="decoder_apart", readers=cores)),
        "decoder alone, in threads": worker(**job.short(do="decoder", readers=cores)),
        "decoder alone, all frames": worker(**job.short(do="decoder_all", readers=cores)),
        "ours, to crops, in threads": worker(**job.short(do="tensors", mode="crops", readers=cores, threads=1)),
        "ours, to pixel values, in threads": worker(**job.short(do="tensors", mode="pixels", readers=cores, threads=1)),
        "ours, crops to labels": worker(**job.short(do="labels", mode="crops", readers=None)),
        "ours, pixel values to labels": worker(**job.short(do="labels", mode="pixels", readers=None)),
        "transformers pipeline, to pixel values": worker(
            # Every ninth frame of 300, so that it decodes as far as a clip from all of the video.
            **{**job.short(do="transformers", rate_of_frames=job.frame_rate), "count": max(1, job.files // 4)}
        ),
    }
    once = ("decoder alone, all frames", "transformers pipeline, to pixel values")
    sizes = [os.path.getsize(video) for video in job.kinetics]
    best = take_turns(contenders, job.rounds, once=once)
    return {"files": job.files, "different": len(job.kinetics), "mean_bytes": sum(sizes) // len(sizes), **_named(best)}


def workers(job: Job) -> dict[str, Any]:
    """The same with other numbers of readers, which are threads or processes."""
    files = 4 * job.files  # sixteen processes take a while to start
    contenders = {
        f"{n} {kind}": worker(
            **{**job.short(do="labels", mode="crops", readers=n, apart=kind == "processes"), "count": files}
        )
        for n in job.readers
        for kind in ("threads", "processes")
    }
    return _named(take_turns(contenders, 1))


def threads(job: Job) -> dict[str, Any]:
    """Threads of each decoder: for many videos at once, and for a single one."""
    cores = os.cpu_count() or 1
    many = {
        f"{readers} readers x {count} threads": worker(
            **job.short(do="tensors", mode="crops", readers=readers, threads=count)
        )
        for readers, count in sorted({(cores, 1), (cores, cores), (1, 1), (1, cores)})
    }
    video = str(job.inputs / LARGE.name)
    one = {
        f"one video, {count} threads": worker(do="clip", video=video, sampling="uniform", decode="auto", threads=count)
        for count in sorted({1, cores})
    }
    return _named(take_turns({**many, **one}, job.rounds))


def parts(job: Job) -> dict[str, Any]:
    """Where the time of a short video goes."""
    return measured(worker(do="parts", videos=list(job.kinetics)))


def memory(job: Job) -> dict[str, Any]:
    """Many clips, of which one in a hundred is broken."""
    with tempfile.TemporaryDirectory() as folder:
        videos = []
        for number in range(4):
            path = Path(folder) / f"{number}.mp4"
            encode(path, (170, 128), 40, seed=number)
            videos.append(str(path))
        broken = Path(folder) / "broken.mp4"
        broken.write_bytes(Path(videos[0]).read_bytes()[:2000])
        every = max(1, job.memory_clips // 20)
        given = {"videos": videos, "broken": str(broken), "clips": job.memory_clips, "share": 0.01, "every": every}
        return measured(worker(do="memory", **given))


SECTIONS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "long": long, "short": short, "workers": workers, "threads": threads, "parts": parts, "memory": memory,
}  # fmt: skip


# --- processes ---------------------------------------------------------------------------------


def worker(**given: Any) -> list[str]:
    """Return the command of a measurement."""
    return [sys.executable, str(HERE / "throughput_worker.py"), json.dumps(given)]


def take_turns(commands: dict[str, list[str]], rounds: int, once: Sequence[str] = ()) -> dict[str, Any]:
    """Measure each contender ``rounds`` times, or once, in turns; return the round of each with the fastest reading.

    Of contenders that say how many clips they did in a second, the round with the most.
    """
    best: dict[str, dict[str, Any]] = {}
    for number in range(rounds):
        for name, command in commands.items():
            if number and name in once:
                continue
            found, known = measured(command), best.get(name)
            if known is None or _cost(found) < _cost(known):
                best[name] = found
    return best


def _cost(found: dict[str, Any]) -> float:
    return float(-found["clips_per_second"] if "clips_per_second" in found else found["reading_cpu_seconds"])


def _named(best: dict[str, Any]) -> dict[str, Any]:
    return {"contenders": best}


def measured(command: list[str]) -> dict[str, Any]:
    """Run a process; its CPU and wall seconds, its peak memory, and the JSON object that it prints.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode:
            raise RuntimeError(f"{' '.join(command)} exited with {child.returncode}: {err.read()[-2000:]}")
        said: dict[str, Any] = json.loads(out.read().strip().splitlines()[-1])
    # Of the peak that the system tells, a child inherits its parent's: each tells its own.
    return {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2), "seconds": round(seconds, 2), **said}


if __name__ == "__main__":
    main()

"""Runs on a local Ray: what a kill loses, what Ray costs beside a plain loop, and what grows with the number of clips.

    vivit-export demo --fp32 --target onnx -o out/demo
    python benchmarks/dataset_runs.py out/demo

- ``kills``: 2,000 clips; an engine's process and then the command are killed in the middle. After the rerun, rows are
  compared with those of a single process, bit for bit.
- ``overhead``: the same clips by the plain loop and by Ray, in turns on the same cores. Clips per second are those of
  the last three quarters of a run, so that the start, which is given apart, does not count.
- ``cpu``: processor time of both, with all processes of Ray, on some clips and on four times as many; the difference is
  what a clip costs. Unlike clips per second, other work on the machine hardly changes it.
- ``roles``: processor time of a run on Ray from the first partition to the last, by what each process does.
- ``names``: the list of a million clips. ``rows``: how fast one process writes results with 400 logits and 768 numbers
  of an embedding.
- ``drift``: the report of a check of a hundred thousand clips and of a million, from tables with 400 logits of each of
  three runs: seconds, and the memory that a clip takes.

``--only`` repeats some of them and keeps the others. Results are in ``results/scale/dataset_runs.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from common import RESULTS, environment, peak_bytes, write_results

from vivit_export.bundle import read_bundle
from vivit_export.bundle.checks import Gate, Run
from vivit_export.bundle.clip_view import VideoFacts
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.datasets.comparing import EMULATED, ENGINE, REFERENCE
from vivit_export.datasets.drift import Measured, measure_drift
from vivit_export.datasets.engine import Probe
from vivit_export.datasets.inputs import find_inputs
from vivit_export.datasets.results import RunOf, opened
from vivit_export.datasets.tables import check_schema, rows_schema, write_rows
from vivit_export.datasets.work import Outcome, Place, Row
from vivit_export.progress import Silent
from vivit_export.runtime.predict import VideoPrediction, predict_bundle

NAME, FOLDER = "dataset_runs", RESULTS / "scale"
CLIPS = 2000
DIFFERENT = 20
VIVIT = Path(sys.executable).parent / "vivit"


def make_clips(folder: Path, count: int, size: tuple[int, int], frames: int) -> list[Path]:
    """Write a few short videos of moving squares, and link to each many times."""
    (folder / "made").mkdir(parents=True)
    made = [_make_clip(folder / "made" / f"{n}.mp4", n, size, frames + n % 5) for n in range(DIFFERENT)]
    clips = folder / "clips"
    clips.mkdir()
    for number in range(count):
        (clips / f"{number:06}.mp4").hardlink_to(made[number % DIFFERENT])
    return sorted(clips.iterdir())


def _make_clip(path: Path, seed: int, size: tuple[int, int], frames: int) -> Path:
    width, height = size
    base = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            image = np.ascontiguousarray(np.roll(base, n, axis=1).repeat(8, 0).repeat(8, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def kills(bundle: Path, folder: Path) -> dict[str, Any]:
    """Kill an engine and then the command, run again, and compare."""
    files, out = make_clips(folder, CLIPS, (64, 48), 10), folder / "out"
    first = _start(bundle, files[0].parent, out)
    _wait_for(out, 5, first)
    engine = next(
        p for p in psutil.Process(first.pid).children(recursive=True) if "_EngineActor" in " ".join(p.cmdline())
    )
    engine.kill()
    _wait_for(out, 15, first)
    family = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    kept = len(list(out.glob("rows/*.parquet")))
    _run(bundle, files[0].parent, out)
    rows = [row for file in sorted(out.glob("rows/*.parquet")) for row in pq.read_table(file).to_pylist()]
    single = list(predict_bundle(read_bundle(bundle), files, contract=read_bundle(bundle).contract, progress=Silent()))
    equal = sum(
        isinstance(one, VideoPrediction)
        and one.prediction.logits is not None
        and str(one.path) == row["video"]
        and np.array_equal(np.float32(row["logits"]), one.prediction.logits)
        for one, row in zip(single, rows, strict=True)
    )
    return {
        "clips": CLIPS,
        "partitions": json.loads((out / "run.json").read_text())["extent"]["partitions"],
        "partitions_kept": kept,
        "rows": len(rows),
        "different_clips": len({row["video"] for row in rows}),
        "rows_equal_to_a_single_process": equal,
        "processes_left_after_a_minute": len(alive),
    }


def _start(bundle: Path, clips: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([VIVIT, "predict", bundle, clips, "--ray", "local", "-q", "-o", out])


def _run(bundle: Path, clips: Path, out: Path) -> None:
    code = _start(bundle, clips, out).wait()
    if code:
        raise RuntimeError(f"the run ended with {code}")


def _wait_for(out: Path, partitions: int, process: subprocess.Popen[bytes]) -> None:
    while len(list(out.glob("rows/*.parquet"))) < partitions:
        if process.poll() is not None:
            raise RuntimeError("the run ended before it was killed")
        time.sleep(0.02)


def overhead(bundle: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Run the plain loop and Ray in turns."""
    files = make_clips(folder, CLIPS, (320, 240), 60)
    plain, ray, starts = [], [], []
    for number in range(rounds):
        plain.append(_plain_rate(bundle, files))
        out = folder / f"out{number}"
        begun = time.time()
        _run(bundle, files[0].parent, out)
        ends = sorted(path.stat().st_mtime for path in out.glob("rows/*.parquet"))
        starts.append(round(ends[0] - begun, 1))
        ray.append(_rate([(end, files_of) for end, files_of in zip(ends, _sizes(out), strict=True)]))
    ratios = [round(p / r, 3) for p, r in zip(plain, ray, strict=True)]
    return {
        "clips": CLIPS,
        "video": "320x240, 60 to 64 frames, H.264",
        "plain_clips_per_second": plain,
        "ray_clips_per_second": ray,
        "plain_over_ray": ratios,
        "median_plain_over_ray": float(np.median(ratios)),
        "seconds_until_the_first_partition": starts,
        "load": round(os.getloadavg()[0], 2),
    }


def _sizes(out: Path) -> list[int]:
    files = sorted(out.glob("rows/*.parquet"), key=lambda path: path.stat().st_mtime)
    return [pq.read_metadata(path).num_rows for path in files]


def _plain_rate(bundle: Path, files: list[Path]) -> float:
    source = read_bundle(bundle)
    results = predict_bundle(source, files, contract=source.contract, progress=Silent())
    with closing(results):
        return _rate([(time.time(), 1) for _ in results])


def _rate(ends: list[tuple[float, int]]) -> float:
    """Clips per second of the last three quarters."""
    first = len(ends) // 4
    return round(sum(count for _, count in ends[first + 1 :]) / (ends[-1][0] - ends[first][0]), 2)


def cpu(bundle: Path, folder: Path) -> dict[str, Any]:
    """Add up the processor time of a run's processes, on a few clips and on many."""
    counts = (300, 1200)
    found: dict[str, list[float]] = {"plain": [], "ray": []}
    for count in counts:
        clips = make_clips(folder / str(count), count, (320, 240), 60)[0].parent
        found["plain"].append(_cpu_seconds([VIVIT, "predict", bundle, clips, "-q"]))
        out = folder / f"out{count}"
        found["ray"].append(_cpu_seconds([VIVIT, "predict", bundle, clips, "-q", "--ray", "local", "-o", out]))
    each = {name: (many - few) / (counts[1] - counts[0]) for name, (few, many) in found.items()}
    return {
        "clips": counts,
        "video": "320x240, 60 to 64 frames, H.264",
        "cpu_seconds": found,
        "cpu_ms_per_clip": {name: round(1e3 * seconds, 2) for name, seconds in each.items()},
        "ray_over_plain": round(each["ray"] / each["plain"], 3),
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu_seconds(command: list[str | Path]) -> float:
    """Run a command; the processor time of it and all that it started, as last seen of each."""
    seen: dict[tuple[int, float], float] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        family = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                for one in (family, *family.children(recursive=True)):
                    with suppress(psutil.Error):
                        times = one.cpu_times()
                        seen[one.pid, one.create_time()] = times.user + times.system
            time.sleep(0.3)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return round(sum(seen.values()), 2)


def roles(bundle: Path, folder: Path) -> dict[str, Any]:
    """Add up the processor time of each kind of process, apart from the start, which ends with the first partition."""
    count = 600
    clips, out = make_clips(folder, count, (320, 240), 60)[0].parent, folder / "out"
    seen: dict[int, float] = {}
    kinds: dict[int, str] = {}
    first: dict[int, float] = {}
    begun = ended = start = time.time()
    before = 0
    with _start(bundle, clips, out) as process:
        family = psutil.Process(process.pid)
        kinds[process.pid] = "command"
        while process.poll() is None:
            with suppress(psutil.Error):
                _look(family, seen, kinds)
            done = len(list(out.glob("rows/*.parquet")))
            if done and not first:
                first, begun, before = dict(seen), time.time(), sum(_sizes(out))
            if done:
                last, ended = dict(seen), time.time()
                if done == json.loads((out / "run.json").read_text())["extent"]["partitions"]:
                    break
            time.sleep(0.3)
        process.wait()
    spent: dict[str, float] = defaultdict(float)
    for pid, seconds in last.items():
        spent[kinds.get(pid, "ray")] += seconds - first.get(pid, 0.0)
    return {
        "clips": count - before,
        "seconds": round(ended - begun, 1),
        "cpu_seconds": {kind: round(seconds, 2) for kind, seconds in sorted(spent.items())},
        "start_seconds": round(begun - start, 1),
        "start_cpu_seconds": round(sum(first.values()), 1),
        "load": round(os.getloadavg()[0], 2),
    }


def _look(family: psutil.Process, seen: dict[int, float], kinds: dict[int, str]) -> None:
    """Note the processor time of each process, and what its title says of its kind: it may change afterwards."""
    for one in (family, *family.children(recursive=True)):
        with suppress(psutil.Error):
            times, title = one.cpu_times(), " ".join(one.cmdline())
            seen[one.pid] = times.user + times.system
            for mark, kind in (("_EngineActor", "engine"), ("_read", "readers")):
                if title.startswith("ray::") and mark in title:
                    kinds[one.pid] = kind


def names(_bundle: Path, folder: Path) -> dict[str, Any]:
    """Find the inputs of a list of a million clips."""
    count = 1_000_000
    place = folder / "list.parquet"
    listed = [f"kinetics/train/class {n % 400:03}/{n:011}_000010_000020.mp4" for n in range(count)]
    pq.write_table(pa.table({"path": listed}), place)
    del listed
    start = time.perf_counter()
    inputs = find_inputs([place])
    found, read = len(inputs.videos), time.perf_counter()
    digest = inputs.sha256
    return {
        "clips": found,
        "read_seconds": round(read - start, 2),
        "hash_seconds": round(time.perf_counter() - read, 2),
        "bytes_per_clip": round((sum(map(sys.getsizeof, inputs.videos)) + sys.getsizeof(inputs.videos)) / count),
        "peak_bytes": peak_bytes(),
        "hash_begins": digest[:8],
    }


def rows(_bundle: Path, folder: Path) -> dict[str, Any]:
    """Write results as the command does, from the pickles that come from engines."""
    import pickle

    each, partitions, batch = 512, 40, 8
    contract = _contract(Tensor("logits", "float32", ("batch", 400)), Tensor("embedding", "float32", ("batch", 768)))
    rng = np.random.default_rng(0)

    def row(n: int) -> Row:
        arrays = {"logits": rng.standard_normal(400, np.float32), "embedding": rng.standard_normal(768, np.float32)}
        return Row(
            Place(n, f"kinetics/train/{n:011}.mp4", None, None), tuple((f"label {k}", 0.2) for k in range(5)), arrays
        )

    batches = [pickle.dumps(Outcome(0, n // batch, n + batch >= each, tuple(row(n + k) for k in range(batch)), ()))
               for n in range(0, each, batch)]  # fmt: skip
    with opened(
        folder / "out", RunOf("", "", "", each), partitions, Probe("", "none", "none", 8), rows_schema(contract), str
    ) as results:
        start = time.perf_counter()
        for number in range(partitions):
            results.write(number, [pickle.loads(found) for found in batches])
        seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in (folder / "out/rows").iterdir())
    count = each * partitions
    return {"rows": count, "rows_per_second": round(count / seconds), "bytes_per_row": round(size / count)}


def _contract(*outputs: Tensor) -> Contract:
    frames = Tensor("frames", "uint8", ("batch", 32, 224, 224, 3))
    pixels = Preprocess(shortest_edge=224, crop_size=(224, 224))
    labels = tuple(f"label {n}" for n in range(400))
    return Contract(Clip(32, 224, 224, (2, 16, 16)), pixels, IO("crops", (frames,), outputs), labels)


def drift(_bundle: Path, folder: Path) -> dict[str, Any]:
    """Measure the drift of many clips from tables, of which there is one that is read again and again."""
    each, contract = 512, _contract(Tensor("logits", "float32", ("batch", 400)))
    rng, names = np.random.default_rng(0), (REFERENCE, ENGINE, EMULATED)

    def row(n: int) -> Row:
        logits = rng.standard_normal(400, np.float32)
        outputs = {f"{run}logits": logits + 1e-3 * rng.standard_normal(400, np.float32) for run in names}
        facts = VideoFacts(340, 256, 30.0, rng.uniform(9, 10), "h264")
        return Row(Place(n, f"kinetics/train/class {n % 400:03}/{n:011}.mp4", None, None, facts), (), outputs)

    table = folder / "part.parquet"
    write_rows(table, [row(n) for n in range(each)], check_schema(contract, names), "key")
    runs = {run: Run(run or "engine", 1, True, None) for run in (ENGINE, EMULATED)}
    measured = Measured(contract, Gate({"max": 0.01}), runs, "eager", "clips", (1, 1), ())
    found: dict[str, Any] = {"bytes_per_row": round(table.stat().st_size / each)}
    for count in (100_000, 1_000_000):
        start = time.perf_counter()
        report = measure_drift([table] * (count // each), measured, None, str)
        seconds, clips = time.perf_counter() - start, report.clips.count
        told = {"clips": clips, "seconds": round(seconds, 1), "peak_bytes": peak_bytes()}
        found["smaller" if count < 1_000_000 else "larger"] = told
    more = found["larger"]["peak_bytes"] - found["smaller"]["peak_bytes"]
    found["bytes_per_clip"] = round(more / (found["larger"]["clips"] - found["smaller"]["clips"]))
    return found


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--only", multiple=True, type=click.Choice(["kills", "overhead", "cpu", "roles", "names", "rows", "drift"])
)
@click.option("--rounds", default=3, show_default=True)
def main(bundle: Path, only: tuple[str, ...], rounds: int) -> None:
    """Measure, and write the results."""
    sections: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
        "kills": kills,
        "overhead": lambda where, folder: overhead(where, folder, rounds),
        "cpu": cpu,
        "roles": roles,
        "names": names,
        "rows": rows,
        "drift": drift,
    }
    content: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        content = json.loads((FOLDER / f"{NAME}.json").read_text())
    for section, measure in sections.items():
        if only and section not in only:
            continue
        told = {**environment(), "load_before": round(os.getloadavg()[0], 2)}
        with tempfile.TemporaryDirectory(prefix="dr-") as folder:
            content[section] = {**measure(bundle.absolute(), Path(folder)), "environment": told}
        print(section, json.dumps({k: v for k, v in content[section].items() if k != "environment"}))
        write_results(NAME, content, FOLDER)


if __name__ == "__main__":
    main()

"""Write ``docs/scale.md`` from ``benchmarks/results``, so that no figure is typed by hand.

    python benchmarks/page/write_scale_page.py

A test runs it and compares.
"""
# ruff: noqa: E501 - lines of pages are longer than those of code

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markdown_table import table
from page_of_results import machine

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/scale.md"
MILLION, BILLION = 10**6, 10**9

_USE = """# Any number of videos

`benchmarks/page/write_scale_page.py` writes this page. Install `vivit-export[ray]`, which brings
[Ray Data](https://docs.ray.io/en/latest/data/data.html) and pyarrow.

```
vivit predict out/rtx4090 path/to/many/videos --ray -o out/rows
```

Give folders, lists of paths (`.txt`, `.csv`, `.tsv`, or `.parquet` with a column `path` or `video`; relative to the list) or
webdataset shards (`.tar`), and put `--ray` after them. It starts Ray on this machine, and stops it at the end.
`vivit check … --ray` measures drift on as many videos, and `vivit calibrate … --ray` runs the graph of a calibration on Ray: see below.

`--ray HOST:PORT`, or the environment variable `RAY_ADDRESS`, uses a cluster. Run the command on one of its machines. All machines must
see the bundle and the videos under the same names, and have the same versions of Python, Ray and this package. Only the machine that
runs the command needs the folder of results. Ray's usage reports are turned off.

## What runs where

- Readers are tasks of one CPU each: they decode, sample and crop, and hand over whole batches. `--readers N` limits how many.
- Engines are actors, one per GPU. `--gpu-share 0.5` puts two on each GPU, which pays off if copies and computation do not overlap.
  No GPU was at hand: tests check how many engines are started, not how they run.
  Without a GPU, or with `--device cpu`, there is one engine per machine, which shares the CPUs with the readers.
- The command writes the results. Ray Data holds back readers when engines are behind, and engines when the command is.

## Results

| in `DIR` | what |
|---|---|
| `rows/part-000000.parquet` | one row per video, or per window: `clip` (number in the inputs, or in its shard), `video`, `window`, `start_seconds`, `end_seconds`, the `--top-k` best `labels` with `scores`, and every output of the bundle (`logits`, `embedding`), bit for bit those of a single process |
| `faults/part-000000.parquet` | videos that could not be used: `clip`, `video`, `sentence`, and the exit `code` of a single process |
| `run.json` | what was run, on which engine, and how much of it is done |

A video in a shard is named `SHARD::MEMBER`. The inputs are split into numbered partitions of at most 512 videos; each shard is one. A
partition is done when its table of rows exists: it is written beside its place, then renamed. After a kill, Ctrl-C (exit code 130) or a
full disk, the same command does only the other partitions; if none is left, it does not start Ray. If a process or a machine of the
cluster ends, another takes over its work.

That folder takes no other bundle, names or options. A video that changed under the same name is not noticed; a shard that changed its
size is. If a video could not be used, the exit code is 3, and all others are predicted.

## Drift

```
vivit check out/rtx4090 --clips path/to/many/videos --checkpoint path/to/checkpoint -o out/drift --report drift.html --ray
```

Each engine also runs the eager model, in float32 and on its own device: the share of a GPU (`--gpu-share`) must hold both, or the eager
model runs on the CPUs of that machine. Engines that do not round (those on CPUs) run beside the graph that emulates the rounding, as in
a check in one process. All machines need `vivit-export[export,ray]`, and must see the checkpoint under the same name. The report has
the figures of a check in one process: the same limits, flips, groups, labels and intervals, over all clips.
What differs:

- The tables of rows have `reference_logits`, `logits` and, with the emulation, `emulated_logits` (embeddings likewise), and what the
  header of each video says: `width`, `height`, `fps`, `seconds`, `codec`. Once they are there, another `--gate`, `--labels` or
  `--baseline` runs nothing again, and starts no Ray.
- The engine runs batches of one size, the largest, and the eager model in the target type does not run. `vivit check` on the golden
  clips covers the other sizes.
- Preprocessing is compared with transformers' on the first 8 usable videos.
- A graph of whole frames takes videos of its size only, as `vivit predict` does.
- Videos that could not be used are left out of the report; the exit code is 3 then, or 5 if the gate is not met.
- A report lists at most 25,000 clips one by one, those that flip or drift most, and says how many more there are. A `--baseline` compares
  all clips one by one, so it takes at most that many.

## Calibration

```
vivit calibrate path/to/checkpoint --calibration-data path/to/many/videos -o out/ranges.json --ray
```

The command reads the clips and adds up what is observed; engines on Ray, one per GPU or machine, run the float32 graph, which is sent to
them. The ranges are those of a single process, bit for bit on the same kind of processor: tests compare them, also after the process of
an engine was killed. Ctrl-C keeps what was done, in the cache of the calibration, and the same command goes on, with or without `--ray`."""


def page(results: Path = RESULTS) -> str:
    """Return the page's text."""
    runs = _read(results / "scale/dataset_runs.json")
    return (
        "\n\n".join((_USE, _costs(runs, results), _limits(runs), _kills(runs), _overhead(runs, _heavy(results)))) + "\n"
    )


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _costs(runs: dict[str, Any], results: Path) -> str:
    short = _read(results / "throughput.json")["short"]
    reading = short["contenders"]["ours, to crops, in threads"]
    core_seconds = reading["cpu_seconds"] / reading["clips"]
    session = _read(results / "session.json")
    engine = session["fp16 bundle"]["onnxruntime, lean attention"]
    rows, names, drift = runs["rows"], runs["names"], runs["drift"]
    each_seconds = drift["larger"]["seconds"] / drift["larger"]["clips"]
    entries = (
        ("store: the videos", f"{short['mean_bytes'] / 1e3:.0f} kB", short["mean_bytes"] / 1e12, "TB"),
        ("decode and crop", f"{1e3 * core_seconds:.0f} ms of a core", core_seconds / 3600, "core hours"),
        (
            "compute: ViViT-B/16x2, fp16 bundle on CPUs",
            f"{engine['cpu_seconds_per_clip']:.2f} s of a core",
            engine["cpu_seconds_per_clip"] / 3600,
            "core hours",
        ),
        ("rows: 400 logits, 768 numbers of an embedding", f"{rows['bytes_per_row'] / 1e3:.1f} kB",
         rows["bytes_per_row"] / 1e12, "TB"),
        ("rows: the one process that writes", f"{1e6 / rows['rows_per_second']:.0f} µs", 1 / rows["rows_per_second"] / 3600,
         "hours"),
        ("names: memory of the command", f"{names['bytes_per_clip']} bytes", names["bytes_per_clip"] / 1e9, "GB"),
        ("drift: tables of three runs, 400 logits each", f"{drift['bytes_per_row'] / 1e3:.1f} kB",
         drift["bytes_per_row"] / 1e12, "TB"),
        ("drift: the one process that reads them", f"{1e6 * each_seconds:.0f} µs", each_seconds / 3600, "hours"),
        ("drift: memory of that process", f"{drift['bytes_per_clip']} bytes", drift["bytes_per_clip"] / 1e9, "GB"),
    )  # fmt: skip
    told = table(
        ("what", "a clip", "a million clips", "a billion clips"),
        [
            (name, one, _amount(each * MILLION, unit), _amount(each * BILLION, unit))
            for name, one, each, unit in entries
        ],
    )
    return "\n\n".join((
        "## What a million and a billion clips cost",
        "Each figure is a measured one of a clip, times the number of clips. The GPU is missing, because none was measured: divide the "
        "number of clips by the clips per second of your engine (`vivit bench BUNDLE`). Videos are those of the benchmark, a few seconds "
        "each; yours differ, so measure a thousand of them first.",
        told,
        f"Store, decode: `benchmarks/results/throughput.json`; compute: `session.json` ({session['environment']['cpu']}). Rows: "
        f"{machine(rows['environment'])}. Names: load {names['environment']['load_before']} before. "
        f"Drift: {machine(drift['environment'])}.",
    ))  # fmt: skip


def _heavy(results: Path) -> float:
    reading = _read(results / "throughput.json")["short"]["contenders"]["ours, to crops, in threads"]
    engine = _read(results / "session.json")["fp16 bundle"]["onnxruntime, lean attention"]
    return float(1e3 * (reading["cpu_seconds"] / reading["clips"] + engine["cpu_seconds_per_clip"]))


def _amount(number: float, unit: str) -> str:
    return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.2g} {unit}"


def _limits(runs: dict[str, Any]) -> str:
    rate, names = runs["rows"]["rows_per_second"], runs["names"]
    return "\n".join((
        "## Where each becomes the limit",
        "",
        "- **Compute** comes first on CPUs, as the table shows. Add machines: nothing is shared but the store and the command.",
        "- **Decode** comes next, with GPUs: an engine of $C$ clips per second needs $C$ times the core time above. The CPUs of a GPU "
        "machine may not do; machines without a GPU join the cluster as readers.",
        f"- **Rows**: one process wrote {rate:,} rows per second. If your engines together are faster than that, split the inputs and "
        "run several commands, each with a folder of its own.",
        f"- **Names** are all in the memory of the command: {names['bytes_per_clip'] * 10**8 / 1e9:.1f} GB for a hundred million. The "
        f"list of a million took {names['read_seconds']:g} s to read. Split a billion into runs of ten million, or store the videos in "
        "shards, of which only the names are kept.",
        "- **Store**: reading has no cache, so each video is read once per run. Shards are read from front to end, which suits disks "
        "and object stores that a machine mounts.",
    ))  # fmt: skip


def _kills(runs: dict[str, Any]) -> str:
    found = runs["kills"]
    return (
        "## Kills\n\n"
        f"{found['clips']:,} clips on Ray on one machine. The process of the engine was killed in the middle, then the command, when "
        f"{found['partitions_kept']} of {found['partitions']} partitions were done. After the same command ran again there were "
        f"{found['rows']:,} rows of {found['different_clips']:,} clips, of which {found['rows_equal_to_a_single_process']:,} had the "
        "logits of a single process, bit for bit. A minute after the command was killed, "
        f"{found['processes_left_after_a_minute']} of the processes of its Ray had not ended yet. The tests do the same with two nodes, "
        "one of which is killed.\n\n"
        f"{machine(found['environment'])}"
    )


def _roles(found: dict[str, Any]) -> str:
    """Say which processes take the time."""
    does = {
        "readers": "decode, crop, and hand over batches", "engine": "runs the model, and makes rows",
        "command": "plans, and writes the tables", "ray": "all other processes of Ray, busy or not",
    }  # fmt: skip
    spent, clips = found["cpu_seconds"], found["clips"]
    return "\n\n".join((
        f"Where it goes, in {found['seconds']:g} s between the first partition and the last ({clips} clips). The start took "
        f"{found['start_cpu_seconds']:g} s of a core before, and {found['start_seconds']:g} s by the clock. What Ray's own processes and "
        "the command take is mostly for each second of a run rather than for each clip.",
        table(("process", "what it does", "a clip"),
              [(name, does[name], f"{1e3 * spent[name] / clips:.1f} ms") for name in does]),
        "An engine on the CPU used to take more: ONNX Runtime's threads wait for the next batch in a loop, on the cores that readers "
        "need. On Ray they sleep instead (`session.intra_op.allow_spinning`).",
        machine(found["environment"]),
    ))  # fmt: skip


def _overhead(runs: dict[str, Any], heavy: float) -> str:
    """Say what Ray costs; ``heavy``: milliseconds of a core that a clip of ViViT-B takes."""
    turns, cpu = runs["overhead"], runs["cpu"]
    few, many = cpu["clips"]
    rows = zip(turns["plain_clips_per_second"], turns["ray_clips_per_second"], turns["plain_over_ray"],
               turns["seconds_until_the_first_partition"], strict=True)  # fmt: skip
    extra = cpu["cpu_ms_per_clip"]["ray"] - cpu["cpu_ms_per_clip"]["plain"]
    return "\n\n".join((
        "## What Ray costs",
        f"The demo on videos of {cpu['video']}, by `vivit predict` without Ray and with it. Processor time of all processes, on {few} "
        f"clips and on {many:,}; the difference is what a clip costs, and what is left is the start.",
        table(("", f"{few} clips", f"{many:,} clips", "a clip"),
              [(title, *(f"{s:.0f} s" for s in cpu["cpu_seconds"][name]), f"{cpu['cpu_ms_per_clip'][name]:.1f} ms")
               for title, name in (("plain", "plain"), ("Ray", "ray"))]),
        f"A clip costs {cpu['ray_over_plain']:.2f} times as much with Ray, {abs(extra):.0f} ms {'more' if extra > 0 else 'less'}, in which "
        "the idle processes of Ray count for as long as the run takes. The threads of the plain loop's engine wait for clips in a loop, on "
        "cores that readers need; on Ray they sleep. The start does not pay off for a few hundred videos: for these, a single process is the "
        f"better choice. A clip of ViViT-B/16x2 takes {heavy:,.0f} ms of a core on CPUs (see above). Its 4.8 MB of crops are copied too, "
        "which was not measured. With GPUs, add what Ray costs to the core time of decoding.",
        machine(cpu["environment"]) + ".",
        _roles(runs["roles"]),
        f"Clips per second of {turns['clips']:,} clips, in turns on the same cores, of the last three quarters of each run. The "
        f"plain loop runs at {100 * turns['median_plain_over_ray']:.0f} % of the speed of Ray, once that has started.",
        table(("plain", "Ray", "plain / Ray", "seconds until the first partition, start of Ray included"),
              [(p, r, f"{ratio:.2f}", s) for p, r, ratio, s in rows]),
        machine(turns["environment"]),
    ))  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")

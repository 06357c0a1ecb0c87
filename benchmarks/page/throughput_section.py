"""The performance page's section on the way from file to label."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from markdown_table import megabytes, table
from page_of_results import machine


def throughput_section(content: dict[str, Any]) -> str:
    """Write what was measured: long videos, many short ones, what limits them, and memory."""
    written = {
        "long": _long,
        "short": _short,
        "workers": _workers,
        "threads": _threads,
        "parts": _parts,
        "memory": _memory,
    }
    again = content.get("measured_again", {})
    paragraphs = []
    for around, names in groupby((name for name in written if name in content), key=again.get):
        paragraphs += [written[name](content[name]) for name in names]
        paragraphs += [machine(around)] if around else []  # that of all others is under the whole
    return "\n\n".join(paragraphs)


def _long(section: dict[str, Any]) -> str:
    rows = []
    for title, measured in section.items():
        contenders = measured["contenders"]
        ours = contenders["ours"]
        for name, f in contenders.items():
            reading, least = f["reading_cpu_seconds"], ours["reading_cpu_seconds"]
            ratio = f"{reading / least:.2f}" if least else "–"
            same = "yes" if f["sha256"] == ours["sha256"] else "no"
            whole = (f["cpu_seconds"], f["seconds"], megabytes(f["peak_bytes"]))
            rows.append((title, name, f"{reading:.2f}", ratio, *whole, same))
    columns = ("32 frames of", "reader", "CPU s", "x ours", "CPU s with start", "s with start", "peak MB", "same bits")
    words = (
        "One clip of a long video. CPU seconds are those of reading; with the start they are those of the whole "
        "process, in which libraries are loaded and the frames are hashed."
    )
    return f"{words}\n\n{table(columns, rows)}"


def _short(section: dict[str, Any]) -> str:
    contenders = section["contenders"]
    theirs = contenders["transformers pipeline, to pixel values"]["clips_per_second"]
    alone = contenders["decoder alone"]["clips_per_second"]
    rows = [
        (name, f"{f['clips_per_second']:.1f}", f"{f['clips_per_second'] / theirs:.1f}",
         f"{100 * f['clips_per_second'] / alone:.0f} %")
        for name, f in contenders.items()
    ]  # fmt: skip
    words = (
        f"{section['files']} files of 10 s of 340x256 ({section['different']} different ones, "
        f'{section["mean_bytes"] / 1e3:.0f} kB each), on all cores. "Decoder alone" decodes what the same 32 frames '
        'need, without reading the packets first, converting or cropping; "to labels" has an engine that takes no time.'
    )
    columns = ("", "clips per s", "x transformers", "of the decoder alone")
    return f"{words}\n\n{table(columns, rows)}"


def _workers(section: dict[str, Any]) -> str:
    found = section["contenders"]
    files = max(f["clips"] for f in found.values())
    rows = []
    for number in sorted({int(name.split()[0]) for name in found}):
        threads, processes = (found[f"{number} {kind}"] for kind in ("threads", "processes"))
        rows.append(
            (number, f"{threads['clips_per_second']:.1f}", _milliseconds(threads),
             f"{processes['clips_per_second']:.1f}", _milliseconds(processes))
        )  # fmt: skip
    words = (
        "Crops to labels with other numbers of `--readers`. Threads of one process run Python in turns, and a reader "
        "comes back to Python a thousand times in such a video. So many videos are read in processes; a few are read "
        f"in threads, which need no start. Each row is the time of {files} files, in which processes start, too."
    )
    columns = ("readers", "threads: clips per s", "CPU ms per clip", "processes: clips per s", "CPU ms per clip")
    return f"{words}\n\n{table(columns, rows)}"


def _milliseconds(found: dict[str, Any]) -> str:
    return f"{1e3 * found['cpu_seconds'] / found['clips']:.0f}"


def _threads(section: dict[str, Any]) -> str:
    rows = []
    for name, f in section["contenders"].items():
        clips = f.get("clips", 1)
        speed = f"{f['clips_per_second']:.1f}" if "clips_per_second" in f else "–"
        rows.append((name, speed, f"{f['cpu_seconds'] / clips:.3f}", f"{f['seconds']:.2f}"))
    words = (
        "Decoder threads. Videos that are read at once get one thread each, and a single one gets all cores: CPU time "
        "is what many videos cost, and seconds are what one takes."
    )
    return f"{words}\n\n{table(('', 'clips per s', 'CPU s per video', 's in all'), rows)}"


def _parts(section: dict[str, Any]) -> str:
    spent = section["cpu_ms"]
    crops, pixels = spent["resize and crop"], spent["resize, crop and normalize"]
    before = sum(spent[name] for name in ("scan the packets", "decode", "convert to RGB"))
    words = (
        f"On the way of such a file to crops, preprocessing takes {crops:.1f} of {before + crops:.1f} ms, and to pixel "
        f"values {pixels:.1f} of {before + pixels:.1f} ms: preprocessing that took no time at all would make the "
        f"whole {(before + crops) / before:.2f}x and {(before + pixels) / before:.2f}x faster. That is why Python "
        "does not call the C++ preprocessor."
    )
    return f"{words}\n\n{table(('step, on one core', 'CPU ms per clip'), list(spent.items()))}"


def _memory(section: dict[str, Any]) -> str:
    seen, every = section["resident_bytes"], section["every"]
    settled = seen[min(1, len(seen) - 1)]
    return (
        f"Of {section['clips']} small videos in one run, {section['faults']} were broken; each had its sentence, and "
        f"the others their result. The process and its readers had {megabytes(settled)} MB after "
        f"{min(2, len(seen)) * every} videos and {megabytes(seen[-1])} MB after all, at most {megabytes(max(seen))} MB."
    )

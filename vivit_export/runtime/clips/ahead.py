"""How many videos to read at once, and in how many threads to decode each."""

from __future__ import annotations

from dataclasses import replace

from vivit_export.cores import usable_cores
from vivit_export.runtime.clips.video.reading import Reading


def num_readers(wanted: int | None, videos: int) -> int:
    """Return how many videos to read at once: as many as asked for, or one per core, but no more than there are."""
    return max(1, min(wanted or usable_cores(), videos))


def share_cores(reading: Reading, readers: int) -> Reading:
    """Give each of several decoders its share of the cores: one thread where there are as many decoders as cores.

    The threads of one decoder wait for each other: two decoders with two threads each took a tenth to a quarter more
    CPU time for short videos than with one (benchmarks/throughput.py, section ``threads``). A single video is decoded
    by all cores.
    """
    return replace(reading, threads=max(1, usable_cores() // readers))

"""The process that reads videos for `processes`: paths on standard input, answers on standard output, both as JSON."""

from __future__ import annotations

import json
import mmap
import os
import sys
from pathlib import Path

import numpy as np

from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.records import JsonObject, from_json
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.clips.video.stopping import ReadingPool
from vivit_export.runtime.clips.views import Rows, read_views_to


def main(job: JsonObject) -> None:
    """Read videos until standard input ends, which also stops in the middle of one.

    Args:
        job: what `processes` sends first: the contract, how to read, and the memory to write to.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is not an answer
    contract = from_json(Contract, job["contract"], "contract")
    rows: Rows = np.ndarray(job["shape"], np.uint8, mmap.mmap(job["memory"], 0))
    notes: list[str] = []
    reading = Reading(job["decode"], job["threads"], lambda _path, why: notes.append(why))

    def say(answer: JsonObject) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")

    def read(path: str) -> None:
        notes.clear()
        try:
            read_views_to(rows, Path(path), contract, reading)
            found, why = "rows", ""
        except ClipError as e:
            found, why = "fault", e.sentence
        except Exception as e:
            found, why = "failure", f"{type(e).__name__}: {e}"
        say({"notes": notes, "found": found, "why": why})

    say({"ready": True})
    with ReadingPool(1) as pool:
        for line in sys.stdin.buffer:
            pool.submit(read, json.loads(line))

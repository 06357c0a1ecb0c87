"""Which other processes run (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for_end(pid: int, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} is still running"
        time.sleep(0.01)


def children_of(parent: int | None = None) -> set[int]:
    """Processes that another one, or this one, started and that still run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, after = path.read_text().split(" (", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, of, *_ = after.rpartition(") ")[2].split()
        if int(of) == (parent or os.getpid()) and state != "Z":
            found.add(int(pid))
    return found

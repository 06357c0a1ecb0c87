"""How many cores this process may use, which in a container are fewer than the machine has."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of cores that this process may keep busy, 1 or more.

    That is the number of those that it may run on (``taskset``, ``docker --cpuset-cpus``), or the time that its control
    group or one around it grants, rounded up (``docker --cpus``, ``limits.cpu`` of Kubernetes): ``cpu.max`` of
    version 2, ``cpu.cfs_quota_us`` of version 1 (https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas())]))


def is_restricted() -> bool:
    """Whether this process may use fewer cores than the machine has."""
    return usable_cores() < (os.cpu_count() or 1)


def spare_waiting_threads() -> None:
    """Let threads that wait for each other sleep after some microseconds, unless the environment says how they wait.

    By default those of GNU's OpenMP, on which PyTorch computes, wait in a loop for milliseconds. If another process
    needs one of the cores, the thread that is waited for gets its turn only after that. This must come before PyTorch
    is loaded (https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _quotas() -> Iterator[float]:
    """Cores' worth of time that each control group around this process grants."""
    for group in _groups():
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            granted, period = (group / "cpu.max").read_text().split()
            if granted != "max":
                yield int(granted) / int(period)
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            microseconds = int((group / "cpu.cfs_quota_us").read_text())
            if microseconds > 0:  # -1: no limit
                yield microseconds / int((group / "cpu.cfs_period_us").read_text())


def _groups() -> Iterator[Path]:
    """The folders of the control groups of this process, and of those around them."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container sees its own group as the root, though its name may be that on the host.
        for root in {"": [_GROUPS]}.get(controllers, [_GROUPS / controllers, _GROUPS / "cpu"]):
            group = root / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))

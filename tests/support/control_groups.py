"""Control groups as the kernel shows them: what ``/proc/self/cgroup`` says, files below ``/sys/fs/cgroup``, and cores.

Without a limit, the result is None: all cores of the machine.
"""

from __future__ import annotations

from pathlib import Path

CASES: list[tuple[str, dict[str, str], int | None]] = [
    ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # in a container
    ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # part of a core is one more thread
    ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
    ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    (
        "0::/a/b\n",
        {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"},
        3,
    ),  # around it
    ("0::/docker/ab12\n", {"cpu.max": "400000 100000\n"}, 4),  # the name is the host's, which is not seen here
    ("0::/../other\n", {"cpu.max": "400000 100000\n"}, 4),
    (
        "1:cpu,cpuacct:/x\n",
        {"cpu,cpuacct/x/cpu.cfs_quota_us": "250000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
        3,
    ),
    ("1:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "0"}, None),
    ("3:cpuset:/\n", {"cpuset/cpu.max": "100000 100000"}, None),  # another controller
    ("0::/\n", {"cpu.max": "many\n"}, None),
    ("0::/\n", {"cpu.max": "100000 0\n"}, None),
    ("nonsense\n\n", {"cpu.max": "100000 100000\n"}, None),
]


def write_groups(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Write them; return what stands for ``/sys/fs/cgroup`` and for ``/proc/self/cgroup``."""
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "groups", folder / "own"

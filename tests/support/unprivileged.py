"""Run a process that obeys the permissions of files, even if the tests run as root."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

_PR_CAPBSET_DROP = 24  # linux/prctl.h
_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH of linux/capability.h


def run_python(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments; root's child may read and write only what its modes allow."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


if __name__ == "__main__":
    for capability in _CAPABILITIES:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused for others, who have neither
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # which root's rights follow

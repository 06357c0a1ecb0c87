"""Signals are tried in a process of their own, where no other test has loaded a library that handles them too.

After `runtime/session/test_lean_attention.py` in the same process, raising SIGINT ended it with a segmentation
fault; the cause is not known. A program that opens either session and is interrupted ends as it should.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_signals_end_a_process_once_and_handlers_come_back() -> None:
    alone = Path(__file__).with_name("signals_alone.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(alone)]
    done = subprocess.run(command, cwd=alone.parents[1], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout

"""An ``nvidia-smi`` on the path that says what a test wants it to say."""

from __future__ import annotations

from pathlib import Path

import pytest

SMI = """#!/bin/sh
case $1 in
  --query-gpu=memory.used) cat "$0.used" ;;
  --query-gpu=*) echo 'NVIDIA H200, 1980 MHz, 1980 MHz, 3201 MHz, 40' ;;
esac
"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``nvidia-smi``; the memory that is used stands in the file that is returned."""
    tool, used = tmp_path / "nvidia-smi", tmp_path / "nvidia-smi.used"
    tool.write_text(SMI)
    tool.chmod(0o755)
    used.write_text("400 MiB\n600 MiB\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return used

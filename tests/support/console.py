"""Running the console commands, and looking at folders before and after."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent

Tree = dict[str, bytes | None]


@dataclass(frozen=True)
class Exported:
    """A finished export and what it printed."""

    bundle: Path
    stdout: str
    stderr: str


def tree(folder: Path) -> Tree:
    """Everything below, hidden files too: bytes of files, None for folders."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a `tree`."""
    return {name: data for name, data in tree(folder).items() if data is not None}


def console(
    command: str | Path, *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an installed command as a process of its own."""
    return subprocess.run([BIN / command, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)

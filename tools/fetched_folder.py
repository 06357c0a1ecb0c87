"""A folder that the tests fetch once: it appears completely, even if several processes want it at the same time."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def fetch_once(folder: Path, is_complete: Callable[[Path], bool], fill: Callable[[Path, Path], None]) -> Path:
    """Fill ``folder`` unless it is complete, and return it.

    Args:
        folder: what is wanted; a folder that is not complete is replaced.
        is_complete: tells whether it is.
        fill: makes its first argument, a folder that does not exist yet; the second is room for what it needs on the
            way, on the same disk.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if not is_complete(folder):
            with tempfile.TemporaryDirectory(dir=folder.parent) as room:
                target = Path(room) / folder.name
                fill(target, Path(room))
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(target, folder)
    return folder


def fetch_versions(folder: Path, wanted: str, fill: Callable[[Path, Path], None]) -> Path:
    """Fill ``folder`` unless it was filled with what is wanted, and return it; see `fetch_once`.

    Args:
        folder: what is wanted; a file in it records what it was filled with.
        wanted: names what it holds, versions included.
        fill: as for `fetch_once`.
    """
    name = "complete.txt"

    def is_complete(there: Path) -> bool:
        return (there / name).is_file() and (there / name).read_text() == wanted

    def fill_and_record(target: Path, room: Path) -> None:
        fill(target, room)
        (target / name).write_text(wanted)

    return fetch_once(folder, is_complete, fill_and_record)


def write_launcher(target: Path, program: Path) -> None:
    """Write ``run`` into a folder of unpacked Debian packages: it starts a program with the libraries beside it.

    Args:
        target: the folder; it may be moved when it is complete, so the script finds all by its own place.
        program: a file in it.
    """
    libraries = sorted({path.parent.relative_to(target) for path in target.glob("usr/lib/**/*.so*")})
    run = target / "run"
    run.write_text(
        "#!/bin/sh\n"
        'here=$(dirname "$(readlink -f "$0")")\n'
        f'export LD_LIBRARY_PATH="{":".join(f"$here/{folder}" for folder in libraries)}"\n'
        f'exec "$here/{program.relative_to(target)}" "$@"\n'
    )
    run.chmod(run.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def pip_install(requirement: str, target: Path) -> None:
    """Install one package without its dependencies into a folder of its own.

    Raises:
        subprocess.CalledProcessError: pip could not find or install it.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), requirement]
    subprocess.run(pip, check=True)

"""Put a real tritonserver beside the test environment, without installing it.

The binary, its libraries and its Python back end come out of the nvidia-pytriton wheel (55 MB), whose
dependencies are not needed. The folder is not on sys.path: no import can pick anything up from it.

    python tools/fetch_triton.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENT = "nvidia-pytriton==0.7.0"  # tritonserver 2.51.0
FOLDER = Path(sys.prefix) / "share" / "tritonserver"
_SERVER = "pytriton/tritonserver"


def is_complete(folder: Path) -> bool:
    """Return whether the pinned version lies in ``folder``."""
    name, version = REQUIREMENT.replace("-", "_").split("==")
    return (folder / f"{name}-{version}.dist-info").is_dir() and (folder / _SERVER / "bin/tritonserver").is_file()


def fetch(folder: Path = FOLDER) -> Path:
    """Unpack the pinned wheel to ``folder`` unless it is there, and return the server's own folder.

    Raises:
        subprocess.CalledProcessError: pip could not find or install it.
    """
    if not is_complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Moved into place whole: another test run may be waiting for the same folder.
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            target = Path(partial) / "tritonserver"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), REQUIREMENT]
            subprocess.run(pip, check=True)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(target, folder)
    return folder / _SERVER


if __name__ == "__main__":
    print(fetch())

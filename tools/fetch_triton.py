"""Put a real tritonserver beside the test environment, without installing it.

The binary, its libraries and its Python back end come from the nvidia-pytriton wheel (55 MB), whose
dependencies are not needed. The folder is not on sys.path, so nothing can import from it.

    python tools/fetch_triton.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import sys
from pathlib import Path

from fetched_folder import fetch_once, pip_install

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
    return fetch_once(folder, is_complete, lambda target, _room: pip_install(REQUIREMENT, target)) / _SERVER


if __name__ == "__main__":
    print(fetch())

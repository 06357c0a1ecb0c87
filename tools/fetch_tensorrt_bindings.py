"""Install the Python bindings of full TensorRT, without its libraries, beside the test environment.

The bindings (6 MB) have every class, method, enum member and signature of the real package. Tests that
import them replace the libraries (2 GB, useless without a GPU) with stubs. The folder is not on
sys.path, so nothing else mistakes it for an installed TensorRT.

    python tools/fetch_tensorrt_bindings.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import sys
from pathlib import Path

from fetched_folder import fetch_once, pip_install

REQUIREMENT = "tensorrt-cu13-bindings==11.4.0.106"
FOLDER = Path(sys.prefix) / "share" / "tensorrt-bindings"


def is_complete(folder: Path) -> bool:
    """Return whether the pinned version lies in ``folder``."""
    name, version = REQUIREMENT.replace("-", "_").split("==")
    return (folder / f"{name}-{version}.dist-info").is_dir() and (folder / "tensorrt_bindings/tensorrt.so").is_file()


def fetch(folder: Path = FOLDER) -> Path:
    """Install the pinned bindings to ``folder`` unless they are there, and return it.

    Raises:
        subprocess.CalledProcessError: pip could not find or install them.
    """
    return fetch_once(folder, is_complete, lambda target, _room: pip_install(REQUIREMENT, target))


if __name__ == "__main__":
    print(fetch())

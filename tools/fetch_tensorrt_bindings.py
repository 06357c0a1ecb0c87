"""Install the Python bindings of full TensorRT, without its libraries, beside the test environment.

The bindings (6 MB) have every class, method, enum member and signature of the real package. Tests that
import them replace the libraries (2 GB, useless without a GPU) with stubs. The folders are not on
sys.path, so nothing else mistakes them for an installed TensorRT.

    python tools/fetch_tensorrt_bindings.py [VERSION]    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import sys
from pathlib import Path

from fetched_folder import fetch_once, pip_install

# The oldest that is supported (JetPack 6.1 has it), one in between, and the newest, whose wheels are those for CUDA 13.
VERSIONS = ("10.3.0", "10.13.0.35", "11.4.0.106")
NEWEST = VERSIONS[-1]
FOLDER = Path(sys.prefix) / "share" / "tensorrt-bindings"


def requirement(version: str) -> str:
    """Return what pip installs for a version."""
    cuda = "cu13" if int(version.split(".")[0]) > 10 else "cu12"
    return f"tensorrt-{cuda}-bindings=={version}"


def is_complete(folder: Path, version: str) -> bool:
    """Return whether that version lies in ``folder``."""
    name = requirement(version).replace("-", "_").replace("==", "-")
    return (folder / f"{name}.dist-info").is_dir() and (folder / "tensorrt_bindings/tensorrt.so").is_file()


def fetch(version: str = NEWEST, folder: Path = FOLDER) -> Path:
    """Install one version to a folder of its own in ``folder`` unless it is there, and return that folder.

    Raises:
        subprocess.CalledProcessError: pip could not find or install it.
    """

    def fill(target: Path, _room: Path) -> None:
        pip_install(requirement(version), target)

    return fetch_once(folder / version, lambda there: is_complete(there, version), fill)


if __name__ == "__main__":
    print(fetch(sys.argv[1] if sys.argv[1:] else NEWEST))

"""Install the Python bindings of full TensorRT, without its libraries, beside the test environment.

The bindings (6 MB) tell every class, method, enum member and signature of the real package; the
libraries (2 GB, and of no use without a GPU) are replaced by stubs where a test imports them. The
folder is not on sys.path: nothing but those tests can mistake it for an installed TensorRT.

    python tools/fetch_tensorrt_bindings.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Moved into place whole: another test run may be waiting for the same folder.
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        target = Path(partial) / "bindings"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), REQUIREMENT]
        subprocess.run(pip, check=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(target, folder)
    return folder


if __name__ == "__main__":
    print(fetch())

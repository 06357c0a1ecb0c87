"""Find Doxygen, or put it beside the test environment, without installing it: it reads the C++ headers for the site.

That unpacks Debian packages: at most 35 MB to download, and 160 MB on the disk.

    python tools/fetch_doxygen.py    # prints the program; does nothing if there is one
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from apt_packages import Apt, codename
from fetched_folder import fetch_versions, write_launcher

FOLDER = Path(sys.prefix) / "share" / "doxygen"


def fetch(folder: Path = FOLDER) -> Path:
    """Return the program that the machine has, or unpack one to ``folder`` unless it is there.

    Raises:
        subprocess.CalledProcessError: apt could not find or download a package.
        FileNotFoundError: this machine has no apt.
    """
    there = shutil.which("doxygen")
    if there is not None:
        return Path(there)
    return fetch_versions(folder, f"doxygen {codename()}\n", _fill) / "run"


def _fill(target: Path, room: Path) -> None:
    apt = Apt(room / "apt", codename())
    apt.unpack_all(apt.lacking("doxygen"), target)
    write_launcher(target, target / "usr/bin/doxygen")


if __name__ == "__main__":
    print(fetch())

"""Put clang++ beside the test environment, without installing it: the tests compile the C++ headers with it.

Unpacks the package of the machine's own Debian suite and its missing dependencies: at most 50 MB to download. clang++
uses the C++ standard library of g++, which must be installed.

    python tools/fetch_clang.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from apt_packages import Apt, codename
from fetched_folder import fetch_versions

FOLDER = Path(sys.prefix) / "share" / "clang"


def fetch(folder: Path = FOLDER) -> Path:
    """Unpack the packages to ``folder`` unless they are there, and return it: a prefix with ``usr`` in it.

    Raises:
        subprocess.CalledProcessError: apt could not find or download a package.
        FileNotFoundError: this machine has no apt.
    """
    return fetch_versions(folder, codename(), _fill)


def _fill(target: Path, room: Path) -> None:
    apt = Apt(room / "apt", codename())
    packages = apt.lacking("clang")
    (compiler,) = (package for package in packages if re.fullmatch(r"clang-\d+", package))
    headers = f"lib{compiler.replace('-', '-common-')}-dev"  # clang looks for them beside itself
    for package in dict.fromkeys((*packages, headers)):
        apt.unpack(package, target)


if __name__ == "__main__":
    print(fetch())

"""Put clang's runtime libraries (libFuzzer and sanitizers) beside the test environment, without installing them.

Unpacks one package of the machine's own Debian suite, a few MB. What is fuzzed in C++ is linked with it.

    python tools/fetch_clang_runtime.py 14    # for clang 14; prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import sys
from pathlib import Path

from apt_packages import Apt, codename
from fetched_folder import fetch_versions

FOLDER = Path(sys.prefix) / "share" / "clang-runtime"


def fetch(version: int, folder: Path = FOLDER) -> Path:
    """Unpack the package to ``folder`` unless it is there, and return it: a prefix with ``usr`` in it.

    Args:
        version: major version of clang.
        folder: where to put it.

    Raises:
        subprocess.CalledProcessError: apt could not find or download the package.
        FileNotFoundError: this machine has no apt.
    """

    def fill(target: Path, room: Path) -> None:
        Apt(room / "apt", codename()).unpack(f"libclang-rt-{version}-dev", target)

    return fetch_versions(folder, f"{codename()} {version}", fill)


if __name__ == "__main__":
    print(fetch(int(sys.argv[1])))

"""Find Chromium, or put its headless build beside the test environment, without installing it.

That unpacks Debian packages: at most 130 MB to download, and 400 MB on the disk.

    python tools/fetch_chromium.py    # prints the program; does nothing if there is one
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from apt_packages import Apt, codename
from fetched_folder import fetch_versions, write_launcher

PACKAGE = "chromium-headless-shell"
FOLDER = Path(sys.prefix) / "share" / "chromium"
_BESIDE = (PACKAGE, "chromium-common")
_ON_GPUS = re.compile("libllvm|libgl1-mesa|libglx-mesa|libdrm-")  # half a gigabyte that a headless one does not use
_NAMES = ("chromium", "chromium-browser", "google-chrome", PACKAGE)


def fetch(folder: Path = FOLDER) -> Path:
    """Return the program that the machine has, or unpack one to ``folder`` unless it is there.

    Raises:
        subprocess.CalledProcessError: apt could not find or download a package.
        FileNotFoundError: this machine has no apt.
    """
    there = next(filter(None, map(shutil.which, _NAMES)), None)
    if there is not None:
        return Path(there)
    return fetch_versions(folder, f"{PACKAGE} {codename()}\n", _fill) / "run"


def _fill(target: Path, room: Path) -> None:
    apt = Apt(room / "apt", codename())
    needed = [name for name in apt.lacking(PACKAGE) if not _ON_GPUS.match(name)]
    packages = (*needed, *_BESIDE)  # even if the machine has these, it looks for them beside itself
    apt.unpack_all([f"{name}/{codename()}" for name in dict.fromkeys(packages)], target)
    (program,) = (path for path in target.glob("usr/lib/chromium/*headless*") if os.access(path, os.X_OK))
    write_launcher(target, program)


if __name__ == "__main__":
    print(fetch())

"""Put axe-core, which finds what makes a page hard to use, beside the test environment, without installing it.

It is one script, which a package of PyPI brings along.

    python tools/fetch_axe.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from fetched_folder import fetch_versions, pip_install

PACKAGE = "axe-playwright-python==0.1.8"
SHA256 = "84494fec757e4710dc751c8d7a636e457f4532f08f85c86dc9070133fbff53bc"
FOLDER = Path(sys.prefix) / "share" / "axe"


def fetch(folder: Path = FOLDER) -> Path:
    """Put ``axe.min.js`` into ``folder`` unless it is there, and return the folder.

    Raises:
        subprocess.CalledProcessError: pip could not find or install it.
        ValueError: it is another script than the one that was looked at.
    """
    return fetch_versions(folder, f"{PACKAGE} {SHA256}\n", _fill)


def _fill(target: Path, room: Path) -> None:
    pip_install(PACKAGE, room / "package")
    (script,) = (room / "package").glob("*/axe.min.js")
    found = hashlib.sha256(script.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"axe.min.js of {PACKAGE} has the SHA-256 {found}, not {SHA256}")
    target.mkdir()
    shutil.copyfile(script, target / "axe.min.js")


if __name__ == "__main__":
    print(fetch())

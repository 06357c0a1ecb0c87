"""Put the script beside the test environment that lets the site's search run without a server.

Browsers start no worker from a file; it starts one in a hidden frame. Material for MkDocs would load it from a server.

    python tools/fetch_iframe_worker.py    # prints the script; does nothing if it is there
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import urllib.request
from pathlib import Path

from fetched_folder import fetch_versions

URL = "https://registry.npmjs.org/iframe-worker/-/iframe-worker-1.0.4.tgz"
SHA256 = "e8c5d12d87829c503afba01d67772ea9f4aba5b7ae57a0c98e1917711030efbb"
FOLDER = Path(sys.prefix) / "share" / "iframe-worker"
_MEMBER = "package/shim/index.js"


def fetch(folder: Path = FOLDER) -> Path:
    """Put the script into ``folder`` unless it is there, and return it.

    Raises:
        OSError: npm's registry cannot be reached.
        ValueError: it has another file than the one that was looked at.
    """
    return fetch_versions(folder, f"{URL} {SHA256}\n", _fill) / "shim.js"


def _fill(target: Path, room: Path) -> None:
    with urllib.request.urlopen(URL, timeout=60) as answer:
        data = answer.read()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise ValueError(f"{URL} has the SHA-256 {found}, not {SHA256}")
    target.mkdir()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        script = archive.extractfile(_MEMBER)
        assert script is not None
        (target / "shim.js").write_bytes(script.read())


if __name__ == "__main__":
    print(fetch())

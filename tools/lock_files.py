"""Write ``constraints-locked.txt``: the one file, by its SHA-256, that pip takes for each package of the tests.

    .venv/bin/python tools/lock_files.py

Run it after a change of ``constraints.txt`` or of the extras in the Makefile. The lock is for what CI has: Linux on
x86-64 with Python 3.11 and the CPU build of torch. ``make LOCKED=1`` installs these files and no others.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
LOCK = ROOT / "constraints-locked.txt"
BUILD = ("setuptools>=77", "wheel")  # they build this package and those without a wheel, outside of pip's isolation
_INTRO = """# The files that `make LOCKED=1` installs: Linux on x86-64, Python 3.11, torch for the CPU.
# Written by tools/lock_files.py from constraints.txt.
"""


def extras() -> str:
    """Return the extras that the Makefile installs."""
    found = re.search(r"^EXTRAS\s*:=\s*(\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1]


def lock_of(report: Mapping[str, Any]) -> str:
    """Return a requirements file with hashes.

    Args:
        report: of ``pip install --dry-run --report``.

    Raises:
        ValueError: a file has no hash.
    """
    entries = {}
    for item in report["install"]:
        name, version, where = item["metadata"]["name"], item["metadata"]["version"], item["download_info"]
        if "dir_info" in where:  # this package
            continue
        digest = where["archive_info"].get("hashes", {}).get("sha256")
        if digest is None:
            raise ValueError(f"pip states no SHA-256 for {name} {version}; take it from an index that has one")
        entries[canonicalize_name(name)] = f"{name}=={version} --hash=sha256:{digest}\n"
    return _INTRO + "".join(entries[name] for name in sorted(entries))


def main() -> None:
    """Ask pip what it would install, and write it."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    what = ["--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}[{extras()}]", *BUILD]
    report = subprocess.run([*command, *what], check=True, stdout=subprocess.PIPE).stdout
    LOCK.write_text(lock_of(json.loads(report)), encoding="utf-8")
    print(f"wrote {LOCK}")


if __name__ == "__main__":
    main()

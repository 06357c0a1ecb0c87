"""Build the documentation as a site of files.

    python tools/build_docs.py [FOLDER]    # default: build/site

It opens without a server, and its search needs no network. Fails if a link leads nowhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fetch_doxygen

ROOT = Path(__file__).parents[1]


class Faulty(Exception):  # noqa: N818 - of the pages, not of this program
    """The site was not built; the message says what MkDocs found."""


def build(folder: Path, project: Path = ROOT) -> None:
    """Build the site of a project in a folder, which is replaced.

    Raises:
        Faulty: a page has a fault, such as a link that leads nowhere.
        FileNotFoundError: this machine has neither Doxygen nor apt.
    """
    environment = {
        **os.environ,
        "DOXYGEN": str(fetch_doxygen.fetch()),
        "NO_MKDOCS_2_WARNING": "1",  # an advertisement
        "PYTHONPATH": str(project / "tools"),
    }
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder.resolve())]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Faulty(done.stdout + done.stderr)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/site"
    try:
        build(target)
    except Faulty as e:
        sys.exit(str(e))
    print(target / "index.html")

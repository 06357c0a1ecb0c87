"""Build the sdist and the wheel that are published: from what git has, with the same bytes on any day.

    python tools/build_dist.py --url https://github.com/OWNER/NAME [--out dist]

What goes in is the commit (``git archive HEAD``), so a stray file in the folder is not. Times are those of the commit
(SOURCE_DATE_EPOCH overrides), owners and modes are fixed. The project's links, and the README's relative ones, which
the index shows beside no repository, point to ``--url`` at the version's tag.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
# setuptools' own back end, as pip calls it; in a process of its own, because it reads the working folder.
_BUILD = "from setuptools import build_meta as b; import sys; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"


def build(url: str, out: Path, root: Path = ROOT) -> list[Path]:
    """Build both files.

    Args:
        url: where the repository can be read, such as https://github.com/OWNER/NAME.
        out: folder for them.
        root: the repository.

    Returns:
        The sdist and the wheel.

    Raises:
        subprocess.CalledProcessError: this is not a git repository, or setuptools failed.
    """
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git(root, "log", "-1", "--format=%ct"))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        source, made = Path(room) / "source", Path(room) / "made"
        _export(root, source)
        add_links(source, url)
        fix_modes(source)
        files = [made / _setuptools(kind, source, made, epoch) for kind in ("sdist", "wheel")]
        normalize_sdist(files[0], epoch)
        return [file.replace(out / file.name) for file in files]


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def _export(root: Path, source: Path) -> None:
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=root, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(source, filter="data")


def _setuptools(kind: str, source: Path, made: Path, epoch: int) -> str:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    command = [sys.executable, "-c", _BUILD, kind, str(made)]
    done = subprocess.run(
        command, cwd=source, env=environment, umask=0o022, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout.splitlines()[-1]


def add_links(source: Path, url: str) -> None:
    """State the project's addresses, and make the README's links absolute."""
    url = url.rstrip("/").removesuffix(".git")
    project = source / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.+)"$', text, re.MULTILINE)
    pages = {"Repository": "", "Documentation": f"/tree/v{version}/docs", "Issues": "/issues",
             "Changelog": f"/blob/v{version}/CHANGELOG.md"}  # fmt: skip
    urls = "".join(f'{name} = "{url}{path}"\n' for name, path in pages.items())
    project.write_text(
        text.replace("[project.scripts]\n", f"[project.urls]\n{urls}\n[project.scripts]\n", 1), encoding="utf-8"
    )
    readme = source / "README.md"
    readme.write_text(absolute_links(readme.read_text(encoding="utf-8"), url, f"v{version}"), encoding="utf-8")


def absolute_links(text: str, url: str, tag: str) -> str:
    """Return Markdown whose relative links and pictures are found at ``url``."""
    text = re.sub(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)", rf"![\1]({url}/raw/{tag}/\2)", text)
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)", rf"[\1]({url}/blob/{tag}/\2)", text)


def fix_modes(source: Path) -> None:
    """Give every file the mode that git records, whatever the umask."""
    for path in source.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def normalize_sdist(path: Path, epoch: int) -> None:
    """Rewrite a .tar.gz with fixed times, owners and order; setuptools takes those of the machine."""
    with tarfile.open(path) as tar:
        entries = [(member, tar.extractfile(member) if member.isfile() else None) for member in tar.getmembers()]
        entries.sort(key=lambda entry: entry[0].name)
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as fixed:
            for member, data in entries:
                member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
                member.pax_headers = {}
                fixed.addfile(member, data)
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as packed:
        packed.write(plain.getvalue())


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, and print the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="the repository, such as https://github.com/OWNER/NAME")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    given = parser.parse_args(arguments)
    for path in build(given.url, given.out):
        print(path)


if __name__ == "__main__":
    main()

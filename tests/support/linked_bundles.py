"""Bundles whose files are links, as other programs lay them out."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

LAYOUTS = ["hub cache", "ConfigMap", "linked folders"]


def link(bundle: Path, home: Path, layout: str) -> Path:
    """Copy a bundle into a layout; return the folder that a user would give.

    Args:
        bundle: not changed.
        home: an empty folder.
        layout: one of `LAYOUTS`.
    """
    if layout == "hub cache":  # each file links to a blob that is named by its hash
        folder = home / "models--owner--name/snapshots/0123abcd"
        blobs = home / "models--owner--name/blobs"
        blobs.mkdir(parents=True)
        for name in _files(bundle):
            blob = blobs / hashlib.sha256((bundle / name).read_bytes()).hexdigest()
            shutil.copyfile(bundle / name, blob)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(os.path.relpath(blob, (folder / name).parent))
        return folder
    if layout == "ConfigMap":  # a volume of Kubernetes, where a new version takes effect with one rename
        folder = home / "mounted"
        shutil.copytree(bundle, folder / "..2026_11_26_10_00_00.123456789")
        (folder / "..data").symlink_to("..2026_11_26_10_00_00.123456789")
        for path in bundle.iterdir():
            (folder / path.name).symlink_to(f"..data/{path.name}")
        return folder
    folder = home / "linked"  # an absolute link to the folder of engines, and to the graph
    shutil.copytree(bundle, home / "elsewhere")
    folder.mkdir()
    for path in (home / "elsewhere").iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def _files(bundle: Path) -> list[str]:
    return [path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()]

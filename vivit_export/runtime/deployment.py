"""Folders that put a bundle to use elsewhere: written whole, replaced whole, every file hashed.

``deployment.json`` lists the files, so that ``--force`` replaces a deployment and nothing else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vivit_export.bundle import MANIFEST, Bundle, FolderKind, read_bundle, sha256_of, write_json, writing
from vivit_export.errors import BundleError, OutputError

FORMAT = "vivit-deployment/1"
LISTING = "deployment.json"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A finished deployment.

    Attributes:
        path: its folder.
        kind: what it is for, as in ``cpp``.
        model: id of the model in it.
        files: size and SHA-256 of every file by its name.
    """

    path: Path
    kind: str
    model: str
    files: dict[str, dict[str, str | int]]

    @property
    def size_bytes(self) -> int:
        """Total size of the files."""
        return sum(int(entry["size"]) for entry in self.files.values())


@contextmanager
def deploying(kind: str, bundle: Bundle, target: Path, force: bool) -> Iterator[Path]:
    """Yield a hidden sibling of ``target`` to fill; list its files and rename it on success, else remove it.

    Args:
        kind: what it is for.
        bundle: what is deployed.
        target: where the deployment shall be.
        force: replace a deployment of any kind that is there.

    Raises:
        OutputError: ``target`` lies inside the bundle, or see `vivit_export.bundle.check_target`.
    """
    if bundle.path.resolve() in target.resolve().parents:
        raise OutputError(f"{target} lies inside the bundle {bundle.path}; choose a folder outside of it")
    with writing(target, force=force, kind=FolderKind("deployment", _listed)) as work:
        yield work
        names = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
        files = {name: {"sha256": sha256_of(work / name), "size": (work / name).stat().st_size} for name in names}
        model = str(bundle.manifest["model"]["id"])
        write_json(work / LISTING, {"format": FORMAT, "kind": kind, "model": model, "files": files})


def read_deployment(folder: Path) -> Deployment:
    """Read the listing of a deployment; its files are not verified.

    Raises:
        BundleError: not a deployment.
    """
    try:
        listing = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        if listing["format"] != FORMAT:
            raise BundleError(f"{folder / LISTING} has format {listing['format']!r}; this version reads {FORMAT!r}")
        return Deployment(folder, listing["kind"], listing["model"], dict(listing["files"]))
    except (OSError, ValueError, LookupError, TypeError) as e:
        raise BundleError(f"{folder} is not a deployment: it has no readable {LISTING}") from e


def copy_bundle(bundle: Bundle, to: Path) -> None:
    """Copy the files that a bundle lists, and verify the copies.

    Raises:
        BundleError: a copy is not what the manifest says.
    """
    for name in (MANIFEST, *bundle.manifest["files"]):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, to / name)
    read_bundle(to)


def _listed(folder: Path) -> set[str]:
    return {LISTING, *read_deployment(folder).files}

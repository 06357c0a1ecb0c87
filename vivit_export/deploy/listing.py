"""Folders that put a bundle to use elsewhere: written whole, replaced whole, every file hashed.

``deployment.json`` lists the files, so that ``--force`` replaces a deployment and nothing else. Where
several deployments share a folder (`vivit_export.deploy.triton.repository`), each has its own listing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vivit_export.bundle import MANIFEST, Bundle, FolderKind, read_bundle, sha256_of, write_json, writing
from vivit_export.errors import BundleError, OutputError

FORMAT = "vivit-deployment/1"
LISTING = "deployment.json"
README = "README.md"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A finished deployment.

    Attributes:
        path: its folder.
        readme: the file with the commands.
        kind: what it is for, as in ``cpp``.
        model: id of the model in it.
        files: size and SHA-256 of every file by its name in the folder.
    """

    path: Path
    readme: Path
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
    require_outside(bundle, target)
    with writing(target, force=force, kind=FolderKind("deployment", _listed)) as work:
        yield work
        write_listing(work, LISTING, kind, bundle)


def require_outside(bundle: Bundle, target: Path) -> None:
    """Refuse to write into the bundle itself.

    Raises:
        OutputError: ``target`` lies inside of it.
    """
    if bundle.path.resolve() in Path(os.path.realpath(target)).parents:  # unlike resolve(), also of links in a circle
        raise OutputError(f"{target} lies inside the bundle {bundle.path}; choose a folder outside of it")


def write_listing(folder: Path, listing: str, kind: str, bundle: Bundle) -> None:
    """List the files of a finished deployment, those that are in ``folder``, in a file with the name ``listing``."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    files = {name: {"sha256": sha256_of(folder / name), "size": (folder / name).stat().st_size} for name in names}
    model = str(bundle.manifest["model"]["id"])
    write_json(folder / listing, {"format": FORMAT, "kind": kind, "model": model, "files": files})


def read_deployment(folder: Path, listing: str = LISTING) -> Deployment:
    """Read the listing of a deployment; its files are not verified.

    Raises:
        BundleError: not a deployment.
    """
    path = folder / listing
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise BundleError(f"{path} has format {content['format']!r}; this version reads {FORMAT!r}")
        readme = path.with_name(README)
        return Deployment(folder, readme, content["kind"], content["model"], dict(content["files"]))
    except (OSError, ValueError, LookupError, TypeError) as e:
        raise BundleError(f"{path.parent} is not a deployment: it has no readable {LISTING}") from e


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

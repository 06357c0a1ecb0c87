"""Deployments: folders that are written and replaced as a whole, with a hash of every file.

``deployment.json`` lists the files, so that ``--force`` replaces a deployment and nothing else. If several
deployments share a folder (`vivit_export.deploy.triton.repository`), each has its own listing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vivit_export.bundle import MANIFEST, SIGNATURE, Bundle, read_bundle
from vivit_export.bundle.manifest import FileRecord
from vivit_export.bundle.writing import list_files
from vivit_export.errors import BundleError, InputError, OutputError
from vivit_export.files import write_json
from vivit_export.folders import FolderKind, writing
from vivit_export.printing import one_line
from vivit_export.records import from_json, parse_json, to_json

FORMAT = "vivit-deployment/1"
LISTING = "deployment.json"
README = "README.md"
BUNDLE = "bundle"
"""Folder with the copy of a bundle, in a deployment that has one."""
_PLAIN = re.compile(r"[\w ./,:;+()-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A finished deployment.

    Attributes:
        path: its folder.
        readme: the file with the commands.
        kind: what it is for, such as ``cpp``.
        model: id of the model in it.
        files: size and SHA-256 of every file, by its name in the folder.
    """

    path: Path
    readme: Path
    kind: str
    model: str
    files: Mapping[str, FileRecord]

    @property
    def size_bytes(self) -> int:
        """Return the total size of the files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True)
class _Listing:
    """What ``deployment.json`` says."""

    format: str
    kind: str
    model: str
    files: Mapping[str, FileRecord]


@contextmanager
def deploying(
    kind: str, bundle: Bundle, target: Path, force: bool, note: Callable[[str], object] = str
) -> Iterator[Path]:
    """Yield a hidden sibling of ``target`` to fill; list its files and rename it on success, else remove it.

    Args:
        kind: what the deployment is for.
        bundle: the bundle to deploy.
        target: where to put the deployment.
        force: replace an existing deployment of any kind.
        note: told of what an interrupted run left, which is removed.

    Raises:
        OutputError: ``target`` is inside the bundle, or see `vivit_export.folders.check_target`.
    """
    require_outside(bundle, target)
    with writing(target, force=force, kind=FolderKind("deployment", _listed), note=note) as work:
        yield work
        write_listing(work, LISTING, kind, bundle)


def require_outside(bundle: Bundle, target: Path) -> None:
    """Refuse to write into the bundle itself.

    Raises:
        OutputError: ``target`` is inside it.
    """
    if bundle.path.resolve() in Path(os.path.realpath(target)).parents:  # unlike resolve(), also of links in a circle
        raise OutputError(f"{target} lies inside the bundle {bundle.path}; choose a folder outside of it")


def write_listing(folder: Path, listing: str, kind: str, bundle: Bundle) -> None:
    """List the files of a finished deployment in ``folder``, in a file named ``listing``."""
    written = _Listing(FORMAT, kind, bundle.manifest.model.id, list_files(folder))
    write_json(folder / listing, to_json(written))


def read_deployment(folder: Path, listing: str = LISTING) -> Deployment:
    """Read the listing of a deployment; its files are not verified.

    Raises:
        BundleError: it is not a deployment.
    """
    path = folder / listing
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        other = data.get("format", FORMAT) if isinstance(data, dict) else FORMAT
        if other != FORMAT:
            raise BundleError(f"{path} has format {other!r}; this version reads {FORMAT!r}")
        found = from_json(_Listing, data, LISTING)
    except BundleError:
        raise
    except (OSError, ValueError, RecursionError, InputError) as e:
        raise BundleError(f"{path.parent} is not a deployment: it has no readable {LISTING}") from e
    return Deployment(folder, path.with_name(README), found.kind, found.model, found.files)


def as_markdown(text: str) -> str:
    """Return what others wrote as one line that Markdown shows as it is: no link, no code, no HTML, no heading."""
    return re.sub(r"([^\w\s./,:;+()-])", r"\\\1", one_line(text)) if not _PLAIN.fullmatch(text) else text


def copy_bundle(bundle: Bundle, to: Path) -> None:
    """Copy the files that a bundle lists, and verify the copies, the manifest's too.

    Raises:
        BundleError: a copy does not match the manifest, or the manifest is not the one that was read.
    """
    for name in (MANIFEST, *bundle.manifest.files):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, to / name)
    if read_bundle(to).manifest_sha256 != bundle.manifest_sha256:
        raise BundleError(f"{bundle.path} changed while it was copied; run again on a bundle that nobody writes to")


def _listed(folder: Path) -> set[str]:
    files = read_deployment(folder).files
    signatures = {
        str(PurePosixPath(name).with_name(SIGNATURE)) for name in files if PurePosixPath(name).name == MANIFEST
    }
    return {LISTING, *files, *signatures}  # a bundle in it may have been signed since

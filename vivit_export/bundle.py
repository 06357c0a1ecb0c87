"""The artefact on disk: a folder that says everything about itself.

``bundle.json`` names every other file with its size and SHA-256. A bundle is built in a hidden
sibling of its target and renamed into place, so a target folder is either complete or untouched.
The same input gives the same bytes (sorted keys, no timestamps); engines excepted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vivit_export.contract import Contract
from vivit_export.errors import BundleError, OutputError

FORMAT = "vivit-bundle/1"
MANIFEST = "bundle.json"
MODEL = "model.onnx"
MODEL_DATA = "model.onnx.data"
GOLDEN = "golden.safetensors"
REPORT = "report.json"
REPORT_HTML = "report.html"
ENGINES = "engines"

_MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was read, and whose files were verified unless asked not to be.

    Attributes:
        path: its folder.
        manifest: ``bundle.json`` as parsed.
        contract: its input and output.
    """

    path: Path
    manifest: dict[str, Any]
    contract: Contract

    @property
    def model(self) -> Path:
        """The ONNX graph."""
        return self.path / MODEL

    @property
    def golden(self) -> Path | None:
        """Clips with their eager fp32 results, or None where the export was not checked."""
        return self.path / GOLDEN if GOLDEN in self.manifest["files"] else None

    @property
    def precision(self) -> str:
        """``fp32``, ``fp16`` or ``bf16``: the type of the graph's GEMMs."""
        return str(self.manifest["precision"]["name"])

    @property
    def engines(self) -> dict[str, dict[str, Any]]:
        """Sidecar of each engine by name; the plan is ``engines/NAME.plan``."""
        return dict(self.manifest["engines"])

    def engine_plan(self, name: str) -> Path:
        """Path of an engine's bytes."""
        return self.path / ENGINES / f"{name}.plan"

    @property
    def size_bytes(self) -> int:
        """Total size of the listed files."""
        return sum(int(entry["size"]) for entry in self.manifest["files"].values())


def read_bundle(path: str | Path, *, verify: bool = True) -> Bundle:
    """Read a bundle and check every listed file against its size and SHA-256.

    Args:
        path: folder with a ``bundle.json``.
        verify: False skips the hashes (sizes are still checked): only for showing a manifest.

    Raises:
        BundleError: not a bundle, another format version, or a file that is missing or altered.
    """
    folder = Path(path)
    manifest = _read_manifest(folder)
    for name, entry in manifest["files"].items():
        _check_file(folder, name, entry, verify)
    return Bundle(folder, manifest, Contract.from_json(manifest["contract"]))


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write ``bundle.json``: ``content`` plus the format and the hash of every file in ``folder``."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    files = {
        name: {"sha256": sha256_of(folder / name), "size": (folder / name).stat().st_size}
        for name in names
        if name != MANIFEST
    }
    write_json(folder / MANIFEST, {"format": FORMAT, **content, "files": files})


def write_json(path: Path, content: Any) -> None:
    """Write JSON deterministically: sorted keys, two spaces, a final newline; beside, then renamed."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check_target(target: Path, force: bool) -> None:
    """Refuse, before any work is done, a target that could not be written at the end.

    Raises:
        OutputError: it exists without ``force``, is not a bundle or an empty folder (those are never
            deleted), or its parent is not writable.
    """
    if target.exists() or target.is_symlink():
        replaceable = target.is_dir() and ((target / MANIFEST).is_file() or not any(target.iterdir()))
        if not replaceable:
            raise OutputError(f"{target} exists and is not a bundle, so it is left alone; choose another folder")
        if not force and any(target.iterdir()):
            raise OutputError(f"{target} exists; pass --force to replace that bundle, or choose another folder")
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{target} cannot be written: {parent} is not a folder you may write to")


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill; rename it to ``target`` on success, remove it on any failure.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    target = target.absolute()
    work: Path | None = None
    try:
        created = _make_parents(target.parent)
        try:
            work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
            work.chmod(0o755)
            yield work
            for path in work.rglob("*"):  # some writers make files that only their owner can read
                path.chmod(0o755 if path.is_dir() else 0o644)
            _swap(work, target)
        except BaseException:
            if work is not None:
                shutil.rmtree(work, ignore_errors=True)
            for folder in created:
                folder.rmdir()
            raise
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{target} was not written: the disk is full; free some space and run again") from e
        if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"{target} cannot be written: {e.strerror}; choose another folder") from e
        raise


def _make_parents(parent: Path) -> list[Path]:
    """Create missing parents; return those created, innermost first, so that they can be undone."""
    missing = []
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for folder in reversed(missing):
        folder.mkdir()
    return missing


def _swap(work: Path, target: Path) -> None:
    if not target.exists():
        work.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.rename(old / "bundle")
    try:
        work.rename(target)
    except BaseException:
        (old / "bundle").rename(target)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        what = "is not a folder" if not folder.is_dir() else f"has no {MANIFEST}"
        raise BundleError(f"{folder} {what}; make a bundle with: vivit-export MODEL -o {folder}")
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is larger than {_MAX_MANIFEST_BYTES >> 20} MiB; it is not a bundle's manifest")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise BundleError(f"{path} cannot be read as JSON: {e}") from e
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise BundleError(f"{path} has format {found!r}; this version reads {FORMAT!r}")
    for key in ("model", "contract", "precision", "engines", "checks", "files"):
        if not isinstance(manifest.get(key), dict):
            raise BundleError(f"{path} lacks the section {key!r}; the bundle is incomplete, export it again")
    if MODEL not in manifest["files"]:
        raise BundleError(f"{path} does not list {MODEL}; the bundle is incomplete, export it again")
    return dict(manifest)


def _check_file(folder: Path, name: str, entry: Any, verify: bool) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name:
        raise BundleError(f"{folder / MANIFEST} lists {name!r}, which lies outside the bundle")
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str) or type(entry.get("size")) is not int:
        raise BundleError(f"{folder / MANIFEST} has no size and sha256 for {name}")
    path = folder / relative
    if not path.is_file() or path.resolve().parent != (folder.resolve() / relative).parent:
        raise BundleError(f"{path} is missing (or a link out of the bundle); export again or restore the file")
    if path.stat().st_size != entry["size"] or (verify and sha256_of(path) != entry["sha256"]):
        raise BundleError(f"{path} is not the file that {MANIFEST} describes: it was altered or cut short")

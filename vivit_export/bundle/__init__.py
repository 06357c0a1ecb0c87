"""The artefact on disk: a folder that says everything about itself.

``bundle.json`` names every other file with its size and SHA-256. A bundle is built in a hidden
sibling of its target and renamed into place, so a target folder is either complete or untouched.
The same input gives the same bytes (sorted keys, no timestamps); engines excepted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vivit_export.contract import Contract
from vivit_export.errors import BundleError, InputError, OutputError, option
from vivit_export.precision import Precision
from vivit_export.signals import uninterrupted

FORMAT = "vivit-bundle/1"
MANIFEST = "bundle.json"
MODEL = "model.onnx"
MODEL_DATA = "model.onnx.data"
GOLDEN = "golden.safetensors"
RANGES = "ranges.json"
REPORT = "report.json"
REPORT_HTML = "report.html"
ENGINES = "engines"

_MAX_MANIFEST_BYTES = 64 << 20
# What every manifest has; readers rely on it.
_SECTIONS: dict[str, tuple[str, ...]] = {
    "model": ("id", "config", "parameters"),
    "contract": ("clip", "preprocess", "io", "labels"),
    "precision": ("name", "attention", "opset"),
    "engines": (),
    "checks": (),
    "files": (),
}


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
    def precision(self) -> Precision:
        """Type of the encoder's weights and GEMMs."""
        return Precision(self.manifest["precision"]["name"])

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
    try:
        manifest = _read_manifest(folder)
        for name, entry in manifest["files"].items():
            _check_file(folder, name, entry, verify)
    except OSError as e:
        raise BundleError(f"{e.filename or folder} cannot be read: {e.strerror}; copy the bundle again") from e
    try:
        contract = Contract.from_json(manifest["contract"])
    except InputError as e:
        raise BundleError(f"{folder / MANIFEST}: {e}") from e
    return Bundle(folder, manifest, contract)


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


@dataclass(frozen=True, slots=True)
class FolderKind:
    """A kind of folder that we write whole, and replace whole.

    Attributes:
        name: what messages call one.
        listed: the files that one consists of, relative; raises `BundleError` where it is none.
    """

    name: str
    listed: Callable[[Path], set[str]]


def _listed(folder: Path) -> set[str]:
    return {MANIFEST, *_read_manifest(folder)["files"]}


BUNDLE = FolderKind("bundle", _listed)


def check_target(target: Path, force: bool, kind: FolderKind = BUNDLE) -> None:
    """Refuse a target that must not, or could not, be replaced by a new bundle.

    An empty folder may be, and with ``force`` a bundle. Nothing else is ever deleted: no folder
    that merely holds a ``bundle.json``, no bundle in which somebody keeps files of their own.
    The same holds for the other kinds of folder.

    Raises:
        OutputError: it is none of these, or its parent is not writable.
    """
    with _refusals(target, any_reason=True):
        _require_replaceable(target, force, kind)
        require_writable(target, target.absolute().parent)


def require_writable(target: Path, folder: Path) -> None:
    """Refuse a folder that cannot take something new, or cannot be made.

    Args:
        target: what messages name.
        folder: where the new thing would be; it may not be there yet.

    Raises:
        OutputError: nothing can be written there.
    """
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target} cannot be written: {folder} is not a folder you may write to")


def _require_replaceable(target: Path, force: bool, kind: FolderKind) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"{target} exists and is not a folder; choose another name")
    if not any(target.iterdir()):
        return
    try:
        listed = kind.listed(target)
    except BundleError as e:
        raise OutputError(
            f"{target} exists and is not a {kind.name}, so it is left alone; choose another folder"
        ) from e
    if not force:
        raise OutputError(
            f"{target} exists; pass {option('force')} to replace that {kind.name}, or choose another folder"
        )
    found = (p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_symlink() or not p.is_dir())
    foreign = sorted(set(found) - listed)
    if foreign:
        raise OutputError(
            f"{target} holds {foreign[0]}, which is not part of the {kind.name} and would be lost; move it elsewhere"
        )


@contextmanager
def writing(target: Path, *, force: bool, kind: FolderKind = BUNDLE) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill; rename it to ``target`` on success, remove it on any failure.

    Args:
        target: where the bundle shall be; behind a symbolic link, the folder it leads to.
        force: replace a bundle that is there.
        kind: what is written, and what may be replaced.

    Raises:
        OutputError: see `check_target`; or the disk is full, or the folder cannot be written.
    """
    with filling(target, check=lambda: check_target(target, force, kind), put=_swap) as work:
        yield work


@contextmanager
def filling(
    target: Path, *, check: Callable[[], None], put: Callable[[Path, Path], None], within: Path | None = None
) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill; put it in place on success, remove it on any failure.

    Args:
        target: what shall be made, or made another; behind a symbolic link, the folder it leads to.
        check: refuses a target as it is; called before, and again when the work is done.
        put: from the filled folder and the target's place: renames into that, or raises `OSError` with nothing changed.
        within: a folder on the target's disk where the work is done, where that is not its parent.

    Raises:
        OutputError: ``check`` does; or the disk is full, or the folder cannot be written.
    """
    with _refusals(target, any_reason=True):
        check()
    place = Path(os.path.realpath(target))
    created: list[Path] = []
    work: Path | None = None
    try:
        with _refusals(target, any_reason=True):
            _make_parents(place.parent, created)
            work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".part", dir=within or place.parent))
            work.chmod(0o755)
        with _refusals(target):
            yield work
        with _refusals(target, any_reason=True), uninterrupted():
            for path in work.rglob("*"):  # some writers make files that only their owner can read
                path.chmod(0o755 if path.is_dir() else 0o644)
            check()  # again: the work took a while
            put(work, place)
    except BaseException:
        with uninterrupted():
            if work is not None:
                shutil.rmtree(work, ignore_errors=True)
            for folder in reversed(created):
                with contextlib.suppress(OSError):  # no longer empty: somebody else uses it
                    folder.rmdir()
        raise


def _make_parents(parent: Path, created: list[Path]) -> None:
    """Create missing parents and add each to ``created``, so that they can be undone."""
    if parent.exists():
        return
    _make_parents(parent.parent, created)
    parent.mkdir()
    created.append(parent)


def _swap(work: Path, place: Path) -> None:
    """Put ``work`` in the place of a folder that may be there; if that fails, that folder is back."""
    if not place.exists():
        work.rename(place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".old", dir=place.parent))
    try:
        place.rename(old / "bundle")
        work.rename(place)
    except OSError:
        if not place.exists():
            (old / "bundle").rename(place)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


_FULL = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "your disk quota is used up; free some space and run again",
    errno.EFBIG: "a file would exceed the size limit (ulimit -f); raise it and run again",
}
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG)


@contextmanager
def _refusals(target: Path, any_reason: bool = False) -> Iterator[None]:
    """Turn what the file system says into an `OutputError`; with ``any_reason``, whatever it says."""
    try:
        yield
    except OSError as e:
        reason = errno.ENOSPC if e.errno is None else e.errno  # NumPy names none where a file takes no more
        if reason in _FULL:
            raise OutputError(f"{target} was not written: {_FULL[reason]}") from e
        if any_reason or e.errno in _CLOSED:
            raise OutputError(f"{target} cannot be written: {e.strerror or e}; choose another folder") from e
        raise


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        what = "is not a folder" if not folder.is_dir() else f"has no {MANIFEST}"
        raise BundleError(f"{folder} {what}; make a bundle with: vivit-export MODEL -o {folder}")
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is larger than {_MAX_MANIFEST_BYTES >> 20} MiB; it is not a bundle's manifest")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path} cannot be read as JSON ({e}); copy the bundle again") from e
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise BundleError(f"{path} has format {found!r}; this version reads {FORMAT!r}")
    for section, keys in _SECTIONS.items():
        content = manifest.get(section)
        missing = (
            section
            if not isinstance(content, dict)
            else next((f"{section}.{k}" for k in keys if k not in content), None)
        )
        if missing:
            raise BundleError(f"{path} lacks {missing!r}; the bundle is incomplete, export it again")
    for name in (MODEL, *(f"{ENGINES}/{engine}.plan" for engine in manifest["engines"])):
        if name not in manifest["files"]:
            raise BundleError(f"{path} does not list {name}; the bundle is incomplete, export it again")
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

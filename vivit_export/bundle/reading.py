"""Read a bundle, and verify it before use."""

from __future__ import annotations

import hashlib
import html
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vivit_export.bundle.engines import EngineRecord
from vivit_export.bundle.manifest import FileRecord, Manifest
from vivit_export.bundle.names import ENGINES, FORMAT, GOLDEN, MANIFEST, MODEL, REPORT_HTML, SIGNATURE
from vivit_export.bundle.upgrade import from_version_1, with_anatomy
from vivit_export.contract import Contract
from vivit_export.errors import BundleError, InputError
from vivit_export.files import as_path, open_regular, regular_bytes, sha256_of
from vivit_export.limits import MOST_MANIFEST_BYTES
from vivit_export.precision import Precision
from vivit_export.printing import one_line
from vivit_export.records import JsonObject, from_json, parse_json

_FORMAT_1 = "vivit-bundle/1"


@dataclass(frozen=True)
class Bundle:
    """A bundle with a parsed manifest and, unless the caller declined, verified files.

    Attributes:
        path: its folder.
        manifest: what it says about itself.
        manifest_sha256: SHA-256 of the bytes that ``manifest`` was parsed from, which is what a signature covers.
    """

    path: Path
    manifest: Manifest
    manifest_sha256: str = ""

    def __repr__(self) -> str:
        model, engines = self.manifest.model.id, ", ".join(self.engines) or "no engine"
        return f"<Bundle {self.path}: {model} in {self.precision}, {engines}>"

    def _repr_html_(self) -> str:
        """Show the beginning of the report in a notebook; its scripts could not run, even if somebody added some."""
        if REPORT_HTML not in self.manifest.files:
            return f"<code>{html.escape(one_line(repr(self)))}</code>"
        page = html.escape(self.read(REPORT_HTML).decode("utf-8", "replace"))
        title = html.escape(one_line(repr(self)))
        style = "width: 100%; height: 36em; border: 1px solid #8888"
        return f'<iframe title="{title}" style="{style}" sandbox="" srcdoc="{page}"></iframe>'

    @property
    def contract(self) -> Contract:
        """Its input and output."""
        return self.manifest.contract

    @property
    def model(self) -> Path:
        """The ONNX graph."""
        return self.path / MODEL

    @property
    def golden(self) -> Path | None:
        """Clips with their eager fp32 results, or None if the export was not checked."""
        return self.path / GOLDEN if GOLDEN in self.manifest.files else None

    @property
    def precision(self) -> Precision:
        """Type of the encoder's weights and GEMMs."""
        return self.manifest.precision.name

    @property
    def engines(self) -> Mapping[str, EngineRecord]:
        """What is known about each engine, by name."""
        return self.manifest.engines

    def engine_path(self, name: str) -> Path:
        """Path of an engine's bytes."""
        return self.path / ENGINES / f"{name}.plan"

    @property
    def size_bytes(self) -> int:
        """Total size of the listed files."""
        return sum(file.size for file in self.manifest.files.values())

    def read(self, name: str) -> bytes:
        """Return a file's bytes, which are those that the manifest describes: what is hashed is what is returned.

        Whoever uses a file's content takes it from here, so that a file which was replaced since the bundle was
        verified is never used.

        Args:
            name: as the manifest lists it.

        Raises:
            BundleError: it is not listed, cannot be read, or was altered.
        """
        record, path = self._listed(name), self.path / name
        try:
            with open_regular(path) as file:
                if os.fstat(file.fileno()).st_size != record.size:
                    raise _altered(path)
                content = file.read(record.size)
        except OSError as e:
            raise _unreadable(path, e) from e
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise _altered(path)
        return content

    def read_parts(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of a file, which as a whole is the one that the manifest describes; see `read`.

        Memory: the parts, and a piece of the file at a time.

        Args:
            name: as the manifest lists it.
            ranges: of each part the first byte, and the one after the last.

        Raises:
            BundleError: it is not listed, cannot be read, or was altered.
        """
        record, path = self._listed(name), self.path / name
        digest, at = hashlib.sha256(), 0
        parts = [bytearray() for _ in ranges]
        try:
            with open_regular(path) as file:
                while piece := file.read(min(1 << 20, record.size - at)):
                    digest.update(piece)
                    for part, (first, after) in zip(parts, ranges, strict=True):
                        part += piece[max(0, first - at) : max(0, after - at)]
                    at += len(piece)
                if os.fstat(file.fileno()).st_size != record.size:
                    raise _altered(path)
        except OSError as e:
            raise _unreadable(path, e) from e
        if digest.hexdigest() != record.sha256:
            raise _altered(path)
        return [bytes(part) for part in parts]

    def _listed(self, name: str) -> FileRecord:
        record = self.manifest.files.get(name)
        if record is None:
            raise BundleError(
                f"{self.path / MANIFEST} does not list {name}, so it is not used; export the bundle again"
            )
        return record


def read_bundle(path: str | Path, *, verify: bool = True) -> Bundle:
    """Read a bundle and check every listed file against its size and SHA-256.

    Args:
        path: folder with a ``bundle.json``.
        verify: False skips the hashes (sizes are still checked), for callers that only show the manifest.

    Raises:
        BundleError: not a bundle, another format version, or a file that is missing or altered.
        UsageError: it is not a path.
    """
    folder = as_path(path, "bundle")
    try:
        found = read_without_files(folder)
        for name, file in found.manifest.files.items():
            _check_file(folder, name, file, verify)
    except OSError as e:
        raise _unreadable(folder, e) from e
    return found


def read_without_files(folder: Path) -> Bundle:
    """Read ``bundle.json`` alone: the files that it lists may be elsewhere.

    Raises:
        BundleError: not a bundle, another format version, or a section that is damaged.
        OSError: it cannot be read.
    """
    data = _read_manifest(folder)
    return Bundle(folder, _parse_manifest(data, folder / MANIFEST), hashlib.sha256(data).hexdigest())


def copy_files(bundle: Bundle, to: Path) -> None:
    """Copy the files that the manifest lists, and verify the copies: later changes of the originals do not matter.

    Raises:
        BundleError: a copy is not what the manifest describes.
        OSError: it cannot be read or written.
    """
    for name, file in bundle.manifest.files.items():
        copy = to / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, copy)
        if sha256_of(copy) != file.sha256:
            raise BundleError(
                f"{bundle.path / name} changed while it was copied; run again on a bundle that nobody writes to"
            )


def read_manifest(folder: Path) -> Manifest:
    """Return what `read_without_files` reads."""
    return read_without_files(folder).manifest


def _parse_manifest(content: bytes, path: Path) -> Manifest:
    data = _parse(content, path)
    found = data.pop("format", None)
    if found not in (FORMAT, _FORMAT_1):
        raise BundleError(f"{path} has format {found!r}; this version reads {FORMAT!r} and {_FORMAT_1!r}")
    for section in ("model", "contract", "precision", "engines", "checks", "files"):
        if section not in data:
            raise BundleError(f"{path} lacks {section!r}; the bundle is incomplete, export it again")
    try:
        data = with_anatomy(from_version_1(data) if found == _FORMAT_1 else data)
        manifest = from_json(Manifest, data, "bundle")
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise BundleError(f"{path} is not a manifest of {found} ({e}); export the bundle again") from e
    except InputError as e:
        raise BundleError(f"{path}: {str(e).removeprefix('bundle.')}") from e
    for name in (MODEL, *(f"{ENGINES}/{engine}.plan" for engine in manifest.engines)):
        if name not in manifest.files:
            raise BundleError(f"{path} does not list {name}; the bundle is incomplete, export it again")
    for name in (MANIFEST, SIGNATURE):
        if name in manifest.files:
            raise BundleError(f"{path} lists {name}, which cannot describe itself; export the bundle again")
    return manifest


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    if not path.is_file():
        what = "is not a folder" if not folder.is_dir() else f"has no {MANIFEST}"
        raise BundleError(f"{folder} {what}; make a bundle with: vivit-export MODEL -o {folder}")
    try:
        return regular_bytes(path, MOST_MANIFEST_BYTES)
    except ValueError as e:
        raise BundleError(
            f"{path} is larger than {MOST_MANIFEST_BYTES >> 20} MiB; it is not a bundle's manifest"
        ) from e


def _parse(content: bytes, path: Path) -> JsonObject:
    try:
        data = parse_json(content.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path} cannot be read as JSON ({e}); copy the bundle again") from e
    return dict(data) if isinstance(data, dict) else {}


def _check_file(folder: Path, name: str, file: FileRecord, verify: bool) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name:
        raise BundleError(f"{folder / MANIFEST} lists {name!r}, which lies outside the bundle")
    path = folder / relative
    if not path.is_file():  # a link to a file is as good: the hash says what it leads to
        raise BundleError(f"{path} is missing (or not a file); export again or restore the file")
    if path.stat().st_size != file.size or (verify and sha256_of(path) != file.sha256):
        raise _altered(path)


def _altered(path: Path) -> BundleError:
    return BundleError(f"{path} is not the file that {MANIFEST} describes: it was altered or cut short")


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{error.filename or path} cannot be read: {error.strerror}; copy the bundle again")

"""Read a bundle, and verify it before use."""

from __future__ import annotations

import hashlib
import html
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vivit_export.bundle.engines import EngineRecord
from vivit_export.bundle.manifest import FileRecord, Manifest
from vivit_export.bundle.names import ENGINES, GOLDEN, MANIFEST, MODEL, REPORT_HTML, SIGNATURE
from vivit_export.bundle.parsing import parse_manifest
from vivit_export.contract import Contract
from vivit_export.errors import BundleError
from vivit_export.files import as_path, open_regular, regular_bytes, sha256_of
from vivit_export.hub import HubAddress, download, download_if_there, is_hub_address, parse_hub_address
from vivit_export.limits import MOST_MANIFEST_BYTES, MOST_SIGNATURE_BYTES
from vivit_export.precision import Precision
from vivit_export.printing import one_line
from vivit_export.progress import Progress, Silent


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
        path: folder with a ``bundle.json``; or its address on the hub, ``hf://OWNER/NAME[@REVISION]``, from where it is
            downloaded first, unless the hub's cache has it.
        verify: False skips the hashes (sizes are still checked), for callers that only show the manifest.

    Raises:
        BundleError: not a bundle, another format version, or a file that is missing or altered; or the hub does not
            have it, or cannot be reached.
        UsageError: it is not a path, and not an address.
        MissingDependencyError: it is an address, and the extra ``hub`` is not installed.
    """
    folder = folder_of(path)
    try:
        found = read_without_files(folder)
        for name, file in found.manifest.files.items():
            _check_file(folder, name, file, verify)
    except OSError as e:
        raise _unreadable(folder, e) from e
    return found


def folder_of(bundle: str | Path) -> Path:
    """Return the folder of a bundle; one on the hub is downloaded (`fetch`).

    Raises:
        BundleError, OutputError, UsageError, MissingDependencyError: see `read_bundle`.
    """
    return fetch(parse_hub_address(str(bundle))) if is_hub_address(bundle) else as_path(bundle, "bundle")


def fetch(address: HubAddress, progress: Progress | None = None) -> Path:
    """Download a bundle from the hub, unless the hub's cache has it, and return its folder there, of one commit.

    Only what its manifest lists is downloaded, and no file that is larger than it says. The hashes are not verified.

    Args:
        address: of the bundle.
        progress: receives the stage.

    Raises:
        BundleError: the hub does not have it, or cannot be reached; or it is not a bundle.
        OutputError: the cache cannot be written.
        MissingDependencyError: the extra ``hub`` is not installed.
    """
    path = download(address, MANIFEST, MOST_MANIFEST_BYTES)
    folder = path.parent
    commit = address.at(folder.name)
    try:
        files = parse_manifest(_read_manifest(folder), path).files
    except OSError as e:
        raise _unreadable(path, e) from e
    with (progress or Silent()).counting(f"download {address}", len(files), "files") as advance:
        for name, file in files.items():
            download(commit, name, file.size)
            advance(1)
    download_if_there(commit, SIGNATURE, MOST_SIGNATURE_BYTES)
    return folder


def read_without_files(folder: Path) -> Bundle:
    """Read ``bundle.json`` alone: the files that it lists may be elsewhere.

    Raises:
        BundleError: not a bundle, another format version, or a section that is damaged.
        OSError: it cannot be read.
    """
    data = _read_manifest(folder)
    return Bundle(folder, parse_manifest(data, folder / MANIFEST), hashlib.sha256(data).hexdigest())


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


def _check_file(folder: Path, name: str, file: FileRecord, verify: bool) -> None:
    path = folder / name
    if not path.is_file():  # a link to a file is as good: the hash says what it leads to
        raise BundleError(f"{path} is missing (or not a file); export again or restore the file")
    if path.stat().st_size != file.size or (verify and sha256_of(path) != file.sha256):
        raise _altered(path)


def _altered(path: Path) -> BundleError:
    return BundleError(f"{path} is not the file that {MANIFEST} describes: it was altered or cut short")


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{error.filename or path} cannot be read: {error.strerror}; copy the bundle again")

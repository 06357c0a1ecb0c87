"""Parse the bytes of ``bundle.json``, of which nothing is trusted."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from vivit_export.bundle.manifest import Manifest
from vivit_export.bundle.names import ENGINES, FORMAT, MANIFEST, MODEL, SIGNATURE
from vivit_export.bundle.upgrade import from_version_1, with_anatomy
from vivit_export.errors import BundleError, InputError
from vivit_export.records import JsonObject, from_json, parse_json

_FORMAT_1 = "vivit-bundle/1"


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Return what a manifest says, and refuse one that names files outside its bundle.

    Args:
        content: the bytes of the file.
        path: of the file, for messages.

    Raises:
        BundleError: it is none, of another format version, or damaged.
    """
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
    for name in manifest.files:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\\" in name:
            raise BundleError(f"{path} lists {name!r}, which lies outside the bundle")
    return manifest


def _parse(content: bytes, path: Path) -> JsonObject:
    try:
        data = parse_json(content.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path} cannot be read as JSON ({e}); copy the bundle again") from e
    return dict(data) if isinstance(data, dict) else {}

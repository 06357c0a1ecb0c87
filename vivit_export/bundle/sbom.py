"""A bill of materials of a bundle: its files, the weights they came from, and the packages that made it.

The format is CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/). The same bundle gives the same bytes: it holds no
time, and nothing random.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vivit_export.bundle.manifest import Content, FileRecord
from vivit_export.bundle.names import ENGINES, SBOM
from vivit_export.errors import BundleError, InputError
from vivit_export.files import json_text, regular_text, write_json
from vivit_export.limits import MOST_MANIFEST_BYTES
from vivit_export.records import JsonObject, from_json, parse_json

_OURS = "vivit-export"
_MODEL = "model"
# Those of https://spdx.org/licenses/ that packages state; any other text is given as a name.
_SPDX = frozenset((
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT"),
    *("LLVM-exception", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "ZPL-2.1", "Zlib"),
))  # fmt: skip
_CONFORMS_TO = {"bomFormat": "CycloneDX", "specVersion": "1.6"}


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package.

    Attributes:
        name: as indexes compare it: lower case, with ``-``.
        version: its version.
        license: SPDX expression (https://spdx.org/licenses/), or what the package says in other words; empty: nothing.
        requires: names of the packages that it requires here.
    """

    name: str
    version: str
    license: str
    requires: tuple[str, ...]


def write_sbom(
    folder: Path, content: Content, packages: Iterable[Package], files: Mapping[str, FileRecord] | None = None
) -> None:
    """Write the bill of materials of a bundle.

    Args:
        folder: the bundle.
        content: what it says about itself.
        packages: what made it.
        files: its other files but manifest and signature; None: they are added when the manifest is written.
    """
    packages, files = list(packages), files or {}
    document: JsonObject = {
        **_CONFORMS_TO,
        "version": 1,
        "metadata": {"component": _model(content), "tools": {"components": [_producer(content)]}},
        "components": [
            *(_file(name, file.sha256, content) for name, file in files.items()),
            *map(_library, packages),
        ],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [_file_ref(name) for name in files]},
            *({"ref": _purl(p.name, p.version), "dependsOn": sorted(_refs(p, packages))} for p in packages),
        ],
    }
    digest = hashlib.sha256(json_text(document).encode()).hexdigest()
    # Version 5: from a name and not random, so that the same bundle has the same one.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"vivit-export:{digest}")
    write_json(folder / SBOM, {**document, "serialNumber": f"urn:uuid:{serial}"})


def renew_sbom(folder: Path, content: Content, files: Mapping[str, FileRecord]) -> None:
    """Write the bill of materials of a bundle again, because its files changed; see `write_sbom`.

    Raises:
        BundleError: what it has is not one of ours.
    """
    write_sbom(folder, content, _packages_in(folder / SBOM), files)


def _packages_in(path: Path) -> list[Package]:
    try:
        document = parse_json(regular_text(path, MOST_MANIFEST_BYTES))
        edges = {entry["ref"]: entry["dependsOn"] for entry in document["dependencies"]}
        libraries = {c["bom-ref"]: c for c in document["components"] if c["type"] == "library"}
        return [
            from_json(
                Package,
                {
                    "name": c["name"],
                    "version": c["version"],
                    "license": _license_in(c),
                    "requires": [libraries[edge]["name"] for edge in edges[ref]],
                },
                SBOM,
            )
            for ref, c in libraries.items()
        ]
    except (InputError, ValueError, TypeError, KeyError, AttributeError, IndexError) as e:
        raise BundleError(f"{path} is not a bill of materials that vivit-export wrote; export the model again") from e


def _license_in(component: JsonObject) -> str:
    if "licenses" not in component:
        return ""
    (entry,) = component["licenses"]
    if "expression" in entry:
        return entry["expression"]  # type: ignore[no-any-return]  # its type is checked with the rest
    named = entry["license"]
    return named["id"] if "id" in named else named["name"]  # type: ignore[no-any-return]


def _model(content: Content) -> JsonObject:
    model = content.model
    weights = [
        {"type": "file", "name": name, "hashes": _sha256(digest)} for name, digest in model.weights_sha256.items()
    ]
    told: JsonObject = {"type": "machine-learning-model", "bom-ref": _MODEL, "name": model.id}
    if model.revision:
        told["version"] = model.revision
    if weights:
        told["pedigree"] = {"ancestors": weights}
    return told


def _producer(content: Content) -> JsonObject:
    return {"type": "application", "name": _OURS, "version": content.producer.vivit_export}


def _file(name: str, digest: str, content: Content) -> JsonObject:
    told: JsonObject = {"type": "file", "bom-ref": _file_ref(name), "name": name, "hashes": _sha256(digest)}
    engine = content.engines.get(Path(name).stem)
    if engine is not None and name.startswith(f"{ENGINES}/"):
        told["properties"] = [{"name": f"{_OURS}:compiled-by", "value": f"{engine.flavour} {engine.version}"}]
    return told


def _file_ref(name: str) -> str:
    return f"file:{name}"


def _library(package: Package) -> JsonObject:
    told: JsonObject = {
        "type": "library",
        "bom-ref": _purl(package.name, package.version),
        "name": package.name,
        "version": package.version,
        "purl": _purl(package.name, package.version),
        "scope": "excluded",  # it made the bundle, and is not in it
    }
    if package.license:
        told["licenses"] = [_license(package.license)]
    return told


def _license(text: str) -> JsonObject:
    names = re.split(r" AND | OR | WITH ", text)
    if not all(name in _SPDX for name in names):
        return {"license": {"name": text}}
    return {"expression": text} if names[1:] else {"license": {"id": text}}


def _purl(name: str, version: str) -> str:
    # https://github.com/package-url/purl-spec: "+" of a local version is percent-encoded.
    return f"pkg:pypi/{name}@{version.replace('+', '%2B')}"


def _refs(package: Package, packages: Iterable[Package]) -> Iterator[str]:
    return (_purl(p.name, p.version) for p in packages if p.name in package.requires)


def _sha256(digest: str) -> list[JsonObject]:
    return [{"alg": "SHA-256", "content": digest}]

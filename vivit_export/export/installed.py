"""What is installed: this package and all that it requires, with their licenses."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from vivit_export.bundle.sbom import Package

_OURS = "vivit-export"
_LONGEST_LICENSE = 100  # of a free text; some packages state the whole license
# Trove classifiers that name one license: https://pypi.org/classifiers/
_CLASSIFIED = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}


def installed_packages(extras: Iterable[str]) -> list[Package]:
    """Return this package and all that it requires on this machine, by name.

    Args:
        extras: extras of this package; what is not installed is left out.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, Package] = {}
    wanted = [Requirement(f"{_OURS}[{','.join(sorted(extras))}]")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        requirement = wanted.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        required = [
            r
            for r in map(Requirement, package.requires or ())
            if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras))
        ]
        wanted += required
        before = found[key[0]].requires if key[0] in found else ()
        names = {*before, *(canonicalize_name(r.name) for r in required if _is_installed(r.name))} - {key[0]}
        found[key[0]] = Package(key[0], package.version, license_of(package), tuple(sorted(names)))
    return [found[name] for name in sorted(found)]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def license_of(package: Distribution) -> str:
    """Return the license that a package states: an SPDX expression if it has one, else its own words."""
    metadata = package.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    classifiers = [name for name in classifiers if name != "OSI Approved"]  # which names no license
    known = [_CLASSIFIED[name] for name in classifiers if name in _CLASSIFIED]
    if known and len(known) == len(classifiers):
        return " AND ".join(known)
    words = metadata["License"].strip() if "License" in metadata else ""
    return words.partition("\n")[0].strip()[:_LONGEST_LICENSE] or ", ".join(classifiers)

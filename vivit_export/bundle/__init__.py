"""The bundle: a folder that describes itself completely.

``bundle.json`` names every other file with its size and SHA-256. A bundle is built in a hidden sibling of its target
and renamed into place, so a target folder is either complete or untouched.
"""

from __future__ import annotations

from vivit_export.bundle.names import (
    ENGINES,
    FORMAT,
    GOLDEN,
    MANIFEST,
    MODEL,
    MODEL_DATA,
    RANGES,
    RECIPE,
    REPORT,
    REPORT_HTML,
    SBOM,
    SIGNATURE,
)
from vivit_export.bundle.reading import Bundle, read_bundle
from vivit_export.bundle.writing import check_target, write_manifest, writing

__all__ = [
    "ENGINES",
    "FORMAT",
    "GOLDEN",
    "MANIFEST",
    "MODEL",
    "MODEL_DATA",
    "RANGES",
    "RECIPE",
    "REPORT",
    "REPORT_HTML",
    "SBOM",
    "SIGNATURE",
    "Bundle",
    "check_target",
    "read_bundle",
    "write_manifest",
    "writing",
]

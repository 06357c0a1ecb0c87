"""Read the check that is stored in a report, to compare another one with it."""

from __future__ import annotations

import re
from pathlib import Path

from vivit_export.bundle import Bundle
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.manifest import Content
from vivit_export.errors import InputError
from vivit_export.files import regular_text, why_missing
from vivit_export.limits import MOST_MANIFEST_BYTES
from vivit_export.records import from_json, parse_json, shown
from vivit_export.report.html import FORMAT

_NEWER = re.compile(r"vivit-report/(\d+)")


def read_baseline(path: Path, bundle: Bundle) -> DriftReport:
    """Read a report that a bundle, a failed export or ``vivit check --report FILE.json`` has.

    Args:
        path: the file.
        bundle: what is checked; the report must be of the same model.

    Returns:
        Its check; the one that ``--save`` added, if there is one.

    Raises:
        InputError: it cannot be read, is not a report or one of another version, is of another model, or has no check.
    """
    content = read_report(path)
    if _identity(content) != _identity(bundle.manifest.content):
        raise InputError(
            f"{path} is of another model: of {content.model.id}, with other weights, labels or clips than "
            f"{bundle.manifest.model.id} in {bundle.path} has"
        )
    found = content.recheck or content.checks
    if found is None:
        raise InputError(
            f"{path} has no check to compare with; write one with: vivit check {bundle.path} --report FILE.json"
        )
    return found


def read_report(path: Path) -> Content:
    """Read a ``report.json``.

    Raises:
        InputError: it cannot be read, or is not a report or one of another version.
    """
    if reason := why_missing(path):
        raise InputError(f"{path} {reason}; give the report.json of an earlier check")
    try:
        told = parse_json(regular_text(path, MOST_MANIFEST_BYTES))
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}; give the report.json of an earlier check") from e
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} is not the report of a check ({e}); give the report.json of an earlier check") from e
    version = told.pop("format", None) if isinstance(told, dict) else None
    if version != FORMAT:
        known = _NEWER.fullmatch(version) if isinstance(version, str) else None
        newer = known is not None and int(known[1][:9]) > int(FORMAT.rpartition("/")[2])
        what = "was written by a newer version" if newer else "is not the report of a check"
        raise InputError(f"{path} {what}: it has format {shown(version)}, and this version reads {FORMAT!r}")
    try:
        return from_json(Content, told, "report")
    except InputError as e:
        raise InputError(f"{path}: {e.sentence.removeprefix('report.')}") from e


def _identity(content: Content) -> tuple[object, ...]:
    """Return what two exports of one model share, whatever their precision: weights, labels, task and the clip."""
    model, contract = content.model, content.contract
    weights = tuple(sorted(model.weights_sha256.values())) or (model.id, model.parameters)
    return weights, contract.labels, contract.task, contract.clip

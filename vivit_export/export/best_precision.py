"""``--precision auto``: try every precision under the gate, and keep the fastest that passes.

Each candidate is exported as it would be alone, with one calibration for INT8 and FP8. Those inside their gate are then
compared (`vivit_export.export.contest`). An interrupted search continues where it was
(`vivit_export.export.candidates`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from vivit_export import __version__, bundle
from vivit_export.bundle import Bundle
from vivit_export.bundle.reading import copy_files
from vivit_export.bundle.search import PrecisionSearch, TriedPrecision
from vivit_export.errors import (
    BuildError,
    DriftError,
    EnvironmentFault,
    PrecisionError,
    UsageError,
    VivitExportError,
    worded,
)
from vivit_export.export.amend import finish
from vivit_export.export.candidates import Candidates, candidates
from vivit_export.export.checkpoint.load import load_checkpoint
from vivit_export.export.contest import hold_contest, settle
from vivit_export.export.options import ExportOptions, ExportPreview
from vivit_export.export.search_preview import ORDER_OF_TRIALS, SearchPreview, preview_search
from vivit_export.precision import Precision
from vivit_export.progress import Progress

_Export = Callable[[str | Path, Path, ExportOptions, Progress], Bundle]


def export_best(
    export: _Export, model: str | Path, target: Path | None, options: ExportOptions, progress: Progress
) -> Bundle:
    """Export the precision that is fastest inside the gate.

    Args:
        export: exports one precision; see `vivit_export.export.pipeline.export_model`.
        model: hub id, checkpoint folder, or ``demo``.
        target: see `preview_search`, as for ``options``.
        options: see there.
        progress: receives each stage.

    Returns:
        The bundle, which says what was tried in ``search``.

    Raises:
        DriftError: none is inside its gate.
        VivitExportError: see `preview_search` and `export_model`. The target is as it was before.
    """
    preview = preview_search(model, target, options)
    for precision, reason in preview.impossible.items():
        progress.note(f"{precision} is not tried: {worded(reason)}")
    target = preview.target
    with candidates(target, _key(preview, options), progress.note) as folder:
        passed: dict[Precision, Bundle] = {}
        for i, (precision, plan) in enumerate(preview.plans.items(), 1):
            progress.note(f"{precision}: candidate {i} of {len(preview.plans)}")
            made = _try(export, folder, plan, progress)
            if made is not None:
                passed[precision] = made
        if not passed:
            raise _none(folder.lost)
        search = _choose(passed, folder, preview, progress)
        winner = passed[search.chosen.precision]
        with bundle.writing(target, force=options.force, note=progress.note) as work:
            copy_files(winner, work)
            return finish(work, replace(winner.manifest.content, search=search), target, progress)


def _key(preview: SearchPreview, options: ExportOptions) -> str:
    """Return the hash of all that the candidates depend on."""
    checkpoint = load_checkpoint(preview.model, revision=options.revision, allow_pickle=options.allow_pickle)
    facts = {
        "version": __version__,
        "weights": dict(checkpoint.weights_sha256),
        "config": dict(checkpoint.config),
        "options": dataclasses.asdict(replace(options, force=False)),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _try(export: _Export, folder: Candidates, plan: ExportPreview, progress: Progress) -> Bundle | None:
    """Return a candidate that is inside its gate; None where it is not, or cannot be made."""
    precision = plan.options.precision
    if precision in folder.lost:
        return None
    found = folder.found(precision)
    if found is not None:
        return found
    try:
        return export(plan.model, folder.place(precision), replace(plan.options, force=True), progress)
    except DriftError as e:
        told = TriedPrecision(precision, "beyond the gate", e.sentence.partition("; no bundle")[0])
    except (BuildError, PrecisionError, EnvironmentFault, UsageError) as e:
        told = TriedPrecision(precision, "impossible", e.sentence)
    folder.lose(told)
    progress.note(f"{precision}: {told.outcome}: {worded(told.reason)}")
    return None


def _none(lost: Mapping[Precision, TriedPrecision]) -> VivitExportError:
    """Return what to raise where no precision passed."""
    reasons = "; ".join(f"{one.precision}: {one.reason}" for one in lost.values())
    beyond = any(one.outcome == "beyond the gate" for one in lost.values())
    kind = DriftError if beyond else BuildError
    return kind(f"no precision could be chosen, so no bundle was written: {reasons}")


def _choose(
    passed: Mapping[Precision, Bundle], folder: Candidates, preview: SearchPreview, progress: Progress
) -> PrecisionSearch:
    checks = {precision: one.manifest.checks for precision, one in passed.items()}
    contest = hold_contest(passed, progress)
    known = {one.precision: one for one in settle(contest, {p: c for p, c in checks.items() if c is not None})}
    known |= folder.lost
    known |= {p: TriedPrecision(p, "impossible", reason) for p, reason in preview.impossible.items()}
    tried = tuple(replace(known[p], reason=worded(known[p].reason)) for p in ORDER_OF_TRIALS)
    return PrecisionSearch(contest.ordered_by, contest.batch, tried, contest.rounds, contest.machine)

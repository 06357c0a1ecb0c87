"""How often the reference and each run of a check are right, as text."""

from __future__ import annotations

from vivit_export.bundle.accuracy import CHANCE, RunAccuracy, Share
from vivit_export.bundle.checks import DriftReport
from vivit_export.errors import counted


def accuracy_lines(report: DriftReport) -> list[str]:
    """Return the lines of ``vivit check`` about labelled clips; none if no label is known."""
    sentences = accuracy_sentences(report)
    return [f"  {'accuracy' if i == 0 else '':<10} {sentence}" for i, sentence in enumerate(sentences)]


def accuracy_sentences(report: DriftReport) -> list[str]:
    """Return the same in sentences without a full stop: one for the reference, and one for each run."""
    accuracy = report.accuracy
    if accuracy is None:
        return []
    head = f"{counted(accuracy.clips, 'clips')} labelled by {accuracy.source}, with 95 % confidence in brackets"
    lines = [f"{head}: {report.reference}: {_both(accuracy.top1, accuracy.top5)}"]
    return lines + [_run(report, run) for run in accuracy.runs if 0 <= run.run < len(report.runs)]


def _run(report: DriftReport, found: RunAccuracy) -> str:
    run = report.runs[found.run]
    text = f"{run.engine}, batch {run.batch}: {_both(found.top1, found.top5)}"
    if not found.only_reference and not found.only_ours:
        return f"{text}, right about the same clips"
    verdict = "may be chance" if found.p_value > CHANCE else "is beyond chance"
    return (
        f"{text}; right about {counted(found.only_ours, 'clips')} that the reference misses, and wrong about "
        f"{found.only_reference} that it gets right: the difference {verdict} (McNemar, p = {found.p_value:.2g})"
    )


def _both(top1: Share, top5: Share) -> str:
    return f"top-1 {_share(top1)}, top-5 {_share(top5)}"


def _share(share: Share) -> str:
    return f"{100 * share.share:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"

"""The clips of a check as text: what flipped, what drifted most, and what these clips have in common."""

from __future__ import annotations

from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.clip_view import ClipDrift, ClipView, Score, Strata, Stratum
from vivit_export.errors import counted
from vivit_export.printing import one_line

MOST_ROWS = 8


def flips_sentence(view: ClipView, count: int) -> str:
    """Return how many of the clips changed their decision, and the largest drift, without a full stop."""
    clear, near = view.flips.count("clear"), view.flips.count("near")
    words = [f"{counted(number, f'{kind} flips')}" for number, kind in ((clear, "clear"), (near, "near")) if number]
    flipped = sum(clip.flip != "none" for clip in view.clips) + view.flips_left_out
    found = " and ".join(words) or "no flip"
    if flipped > clear + near:  # of clips that are not listed one by one
        found = counted(flipped, "flips")
    worst = max(view.drift, key=_size, default=0.0)
    return f"{found} in {counted(count, 'clips')}, drift at most {clip_drift_text(view, worst)}"


def clip_lines(report: DriftReport) -> list[str]:
    """Return the lines of ``vivit check`` about single clips: one if nothing flipped, else a table and the groups."""
    view = report.view
    if view is None or not view.flips:
        return []
    flipped = [clip for clip in view.clips if clip.flip != "none"]
    shown = view.clips[: MOST_ROWS if flipped or not report.passed else 1]
    lines = [flips_sentence(view, report.clips.count), *(_row(report, view, clip) for clip in shown)]
    rest = len(flipped) + view.flips_left_out - len(shown)
    if rest > 0:
        lines.append(f"and {rest} more with a flip; --json names {len(view.clips)} clips")
    lines += [text for strata in view.strata if (text := _strata(strata))]
    return [f"  {'clips' if i == 0 else '':<10} {line}" for i, line in enumerate(lines)]


def _row(report: DriftReport, view: ClipView, clip: ClipDrift) -> str:
    facts = [
        f"drift {clip_drift_text(view, clip.max if view.measure == 'logits' else _missing(clip.embedding_cosine))}"
    ]
    if clip.margin is not None:
        facts.append(f"margin {_percent(clip.margin)}{' (near a tie)' if clip.margin <= view.tie_margin else ''}")
    if clip.nonfinite:
        facts.append(f"{counted(clip.nonfinite, 'values')} NaN or infinite")
    if clip.changed:
        facts.append(f"changed: {', '.join(map(one_line, clip.changed))}")
    elif clip.reference and clip.ours:
        ours, theirs = clip.reference[0], clip.ours[0]
        facts.append(_score(ours) if ours.label == theirs.label else f"{_score(ours)} became {_score(theirs)}")
    if clip.truth is not None:
        facts.append(f"truth {one_line(clip.truth)}")
    if clip.flip != "none":
        runs = dict(enumerate(report.runs))  # a stored report may name runs that it does not have
        facts += [f"{run.engine}, batch {run.batch}" for i, run in runs.items() if i == clip.run]
        facts += [f"flips in {run.engine} too" for i, run in runs.items() if i in clip.flips_in and not run.gated]
    kind = "" if clip.flip == "none" else f"{clip.flip} flip, "
    return f"{one_line(clip.name)}: {kind}{'; '.join(facts)}"


def _strata(strata: Strata) -> str:
    """Return where flips are, if they are in some groups more than in others."""
    if not any(group.clear_flips or group.near_flips for group in strata.groups):
        return ""
    left_out = f", and {strata.left_out} more" if strata.left_out else ""
    return f"flips by {strata.by}: {', '.join(map(_group, strata.groups))}{left_out}"


def _group(group: Stratum) -> str:
    return f"{one_line(group.value)} {group.clear_flips + group.near_flips} of {group.clips}"


def _score(score: Score) -> str:
    value = "" if score.probability is None else f" {100 * score.probability:.1f} %"
    return f"{one_line(score.label)}{value}"


def clip_drift_text(view: ClipView, drift: float | None) -> str:
    """Return the drift of a clip, as `ClipView.drift` has it, for people."""
    if drift is None:
        return "not finite"
    if view.measure == "logits":
        return f"{_percent(drift)} of the range"
    return f"{drift:.2g} (1 - cosine of the embedding)"


def _missing(cosine: float | None) -> float | None:
    return None if cosine is None else 1 - cosine


def _size(drift: float | None) -> float:
    return float("inf") if drift is None else drift


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"

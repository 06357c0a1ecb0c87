"""Choose the defaults of ``vivit predict --spans`` on the demo's task, and report how well they do on other films.

A film is several motions in a row. Each motion lasts two to six seconds, in shots of two seconds: cuts between shots of
one motion are not boundaries, those between motions are. The rule with the best F1 on half of the films is reported on
the other half. A span is right if it has the label of a motion and at least half of their union in common.

    vivit-export demo --fp32 --target onnx -o out/demo
    python benchmarks/spans.py out/demo
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import environment, write_results

import vivit_export as ve
from vivit_export.demo.motion import LABELS, render_clip
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.session.session import Session
from vivit_export.runtime.spans import ActionSpan, SpanFinder, SpanRule

FPS, WIDTH, HEIGHT = 25, 96, 72
SHOT_SECONDS, MOST_SHOTS, MOTIONS = 2, 3, 8
FIRST_SEED = 3_200_000_000
WINDOW, HOP = 1.0, 0.2
ENOUGH_IN_COMMON = 0.5

ON, OFF = (0.4, 0.5, 0.6, 0.7, 0.8), (0.2, 0.3, 0.4, 0.5)
SHORTEST, BRIDGE = (0.0, 0.4, 0.8), (0.0, 0.4, 0.8)

Truth = tuple[str, float, float]
Windows = list[tuple[tuple[float, float], Prediction]]


@dataclass(frozen=True, slots=True)
class Score:
    """How well spans fit the motions of films.

    Attributes:
        precision: share of the spans that are right.
        recall: share of the motions that are found.
        f1: their harmonic mean.
        boundary_error_seconds: mean distance of the edges of right spans from the cuts.
        spans: how many were found.
        motions: how many there are.
    """

    precision: float
    recall: float
    f1: float
    boundary_error_seconds: float
    spans: int
    motions: int


def motions_of(film: int) -> list[tuple[str, int]]:
    """Draw the motions of a film, and how many shots each has; neighbors differ."""
    rng = np.random.default_rng(FIRST_SEED + 1000 * film)
    found: list[tuple[str, int]] = []
    while len(found) < MOTIONS:
        label = str(rng.choice(LABELS))
        if not found or found[-1][0] != label:
            found.append((label, int(rng.integers(1, MOST_SHOTS + 1))))
    return found


def frames_of(film: int) -> Iterator[tuple[float, np.ndarray]]:
    """Render a film: times, and uint8 (h, w, 3)."""
    shots = [label for label, count in motions_of(film) for _ in range(count)]
    number = 0
    for shot, label in enumerate(shots):
        seed = FIRST_SEED + 1000 * film + shot + 1
        for frame in render_clip(label, seed=seed, num_frames=SHOT_SECONDS * FPS, height=HEIGHT, width=WIDTH):
            yield number / FPS, frame
            number += 1


def truth_of(film: int) -> list[Truth]:
    """Return the motions of a film with their cuts."""
    ends = list(itertools.accumulate(count * SHOT_SECONDS for _, count in motions_of(film)))
    starts = [0, *ends[:-1]]
    return [(label, s, e) for (label, _), s, e in zip(motions_of(film), starts, ends, strict=True)]


def predicted(session: Session, film: int) -> Windows:
    """Predict the windows of a film."""
    results = ve.stream(session, frames_of(film), window=WINDOW, hop=HOP)
    return [(result.span_seconds, result.prediction) for result in results]


def spans_of(windows: Windows, rule: SpanRule) -> list[ActionSpan]:
    """Join windows to spans."""
    finder = SpanFinder("film", rule, top_k=1)
    found = [span for seconds, prediction in windows for span in finder.push(seconds, prediction)]
    return [*found, *finder.finish()]


def score(rule: SpanRule, films: Sequence[tuple[Windows, list[Truth]]]) -> Score:
    """Compare the spans of films with their motions; each motion is found once."""
    right, num_spans, num_motions, errors = 0, 0, 0, []
    for windows, truth in films:
        spans, left = spans_of(windows, rule), list(truth)
        num_spans, num_motions = num_spans + len(spans), num_motions + len(truth)
        for span in spans:
            fitting = [
                motion for motion in left if motion[0] == span.label and _share(span, motion) >= ENOUGH_IN_COMMON
            ]
            if fitting:
                left.remove(fitting[0])
                right += 1
                errors += [abs(span.start_seconds - fitting[0][1]), abs(span.end_seconds - fitting[0][2])]
    precision, recall = right / max(1, num_spans), right / num_motions
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    mean = float(np.mean(errors)) if errors else float("nan")
    return Score(round(precision, 4), round(recall, 4), round(f1, 4), round(mean, 4), num_spans, num_motions)


def _share(span: ActionSpan, motion: Truth) -> float:
    common = min(span.end_seconds, motion[2]) - max(span.start_seconds, motion[1])
    union = max(span.end_seconds, motion[2]) - min(span.start_seconds, motion[1])
    return max(0.0, common) / union


def rules() -> list[SpanRule]:
    """Return all rules that are compared, the simplest first."""
    every = itertools.product(SHORTEST, BRIDGE, ON, OFF)
    return [SpanRule(on, off, shortest, bridge) for shortest, bridge, on, off in every if off <= on]


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--films", default=16, show_default=True, help="How many films; half of them choose the rule.")
def main(bundle: Path, films: int) -> None:
    """Write benchmarks/results/spans.json."""
    facts: dict[str, Any] = {"environment": environment()}
    with ve.open_session(bundle) as session:
        shown = [(predicted(session, film), truth_of(film)) for film in range(films)]
    choosing, reporting = shown[::2], shown[1::2]
    scores = {rule: score(rule, choosing) for rule in rules()}
    best = max(scores, key=lambda rule: (scores[rule].f1, -scores[rule].boundary_error_seconds))
    reported = {"best": best, "default": SpanRule(), "no hysteresis, no limits": SpanRule(0.5, 0.5, 0, 0)}
    facts |= {
        "films": films,
        "window_seconds": WINDOW,
        "hop_seconds": HOP,
        "rules_compared": len(scores),
        "results": [
            {"name": name, "rule": asdict(rule), "chosen_on": asdict(score(rule, choosing)),
             "other_films": asdict(score(rule, reporting))}
            for name, rule in reported.items()
        ],
    }  # fmt: skip
    for row in facts["results"]:
        print(row["name"], row["rule"], row["other_films"])
    print(write_results("spans", facts))


if __name__ == "__main__":
    main()

"""Which of several bundles of one model is the fastest: timed in turns, or by their plans where no engine runs here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vivit_export.bundle import Bundle
from vivit_export.bundle.bench import Machine
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.search import Order, TriedPrecision
from vivit_export.errors import EnvironmentFault
from vivit_export.export.engine.cost import plan_seconds
from vivit_export.export.engine.table import read_plan
from vivit_export.precision import Precision
from vivit_export.progress import Progress
from vivit_export.runtime.bench.run import served_commands, take_turns
from vivit_export.runtime.select import GRAPH_ENGINES

EQUAL = 1.05
"""Candidates that take at most this many times as long as the fastest count as equally fast."""

_ROUNDS, _ROUNDS_OF_LARGE, _LARGE_FLOPS = 20, 5, 1e10


@dataclass(frozen=True)
class Contest:
    """What was measured.

    Attributes:
        ordered_by: see `PrecisionSearch`, like those after it.
        batch: see there.
        rounds: see there.
        machine: see there.
        results: the fastest engine of each precision, and its milliseconds per clip or its plan's seconds.
        failed: why a precision has none.
    """

    ordered_by: Order
    batch: int
    rounds: int
    machine: Machine | None
    results: Mapping[Precision, tuple[str, float]]
    failed: Mapping[Precision, str]


def hold_contest(bundles: Mapping[Precision, Bundle], progress: Progress) -> Contest:
    """Time the engines of each bundle: its compiled ones, or without such, those that run its graph on this machine.

    If compiled engines are there and none of them runs here, rate their plans.

    Raises:
        EnvironmentFault: nothing runs here, and there is no plan.
    """
    compiled = all(one.engines for one in bundles.values())
    some = next(iter(bundles.values()))
    # An engine is tuned for one batch; on a CPU, a clip alone is what keeps it busy.
    batch = next(iter(some.engines.values())).profile.opt if compiled else 1
    rounds = _ROUNDS_OF_LARGE if some.manifest.model.anatomy.flops > _LARGE_FLOPS else _ROUNDS
    commands = {
        f"{precision} {engine}": command
        for precision, one in bundles.items()
        for engine, command in served_commands(one, tuple(one.engines) if compiled else GRAPH_ENGINES).items()
    }
    try:
        report = take_turns(commands, batches=(batch,), rounds=rounds, warmup=1, progress=progress)
    except EnvironmentFault as e:
        if not compiled:
            raise
        progress.detail(e.sentence)
        return _rate_plans(bundles, batch)
    if report.interrupted:
        raise KeyboardInterrupt
    results: dict[Precision, tuple[str, float]] = {}
    failed: dict[Precision, str] = {}
    for contender in report.contenders:
        name, _, engine = contender.name.partition(" ")
        precision = Precision(name)
        if contender.error or batch not in contender.seconds:
            failed.setdefault(precision, contender.error)
            continue
        figures = report.figures(contender, batch)
        ms = (figures.p50_ms if figures.compute_ms is None else figures.compute_ms) / batch
        if precision not in results or ms < results[precision][1]:
            results[precision] = (engine, ms)
    left = {precision: reason for precision, reason in failed.items() if precision not in results}
    return Contest("time", batch, rounds, report.machine, results, left)


def _rate_plans(bundles: Mapping[Precision, Bundle], batch: int) -> Contest:
    results = {}
    for precision, one in bundles.items():
        seconds = {
            engine: plan_seconds(read_plan(one, engine).layers, one.manifest.model.anatomy, batch)
            for engine in one.engines
        }
        engine = min(seconds, key=seconds.__getitem__)
        results[precision] = (engine, seconds[engine])
    return Contest("plan", batch, 0, None, results, {})


def settle(contest: Contest, checks: Mapping[Precision, DriftReport]) -> tuple[TriedPrecision, ...]:
    """Choose the fastest, or of those that are as good as equal the one that drifts least; say why the others lost.

    Args:
        contest: what was measured; at least one result.
        checks: of every precision in it.
    """
    cheapest = min(figure for _, figure in contest.results.values())
    near = [precision for precision, (_, figure) in contest.results.items() if figure <= EQUAL * cheapest]
    chosen = min(near, key=lambda precision: (_drift(checks[precision]), contest.results[precision][1]))
    told = []
    for precision, (engine, figure) in contest.results.items():
        one = TriedPrecision(precision, "chosen", drift=_drift(checks[precision]), engine=engine)
        if contest.ordered_by == "time":
            one = replace(one, ms_per_clip=figure)
        else:
            one = replace(one, plan_cost=figure / cheapest)
        if precision is not chosen:
            one = replace(one, outcome="slower", reason=_reason(precision, chosen, contest, near))
        told.append(one)
    for precision, reason in contest.failed.items():
        told.append(TriedPrecision(precision, "impossible", reason, drift=_drift(checks[precision])))
    return tuple(told)


def _reason(precision: Precision, chosen: Precision, contest: Contest, near: list[Precision]) -> str:
    ratio = contest.results[precision][1] / contest.results[chosen][1]
    if precision in near:
        return f"as fast as {chosen} ({ratio:.2f} times its time), and drifts more"
    what = "takes" if contest.ordered_by == "time" else "its plan is rated at"
    return f"{what} {ratio:.2f} times as long as {chosen}"


def _drift(report: DriftReport) -> float:
    """Return the largest difference of gated runs; see `TriedPrecision.drift`."""
    found = [run.drift for run in report.runs if run.gated and run.drift is not None]
    sizes = [d.max if d.max is not None else 1 - (d.embedding_cosine or 0.0) for d in found]
    return max(sizes, default=0.0)

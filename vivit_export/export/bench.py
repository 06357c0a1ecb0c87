"""Time the engines of a bundle and eager PyTorch in one run. Only the latter needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vivit_export.arguments import texts
from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.manifest import Content
from vivit_export.export.amend import amend, require_same
from vivit_export.export.checkpoint.preview import name_of
from vivit_export.files import as_path
from vivit_export.progress import Progress
from vivit_export.runtime.bench.report import BenchReport, parse_kind
from vivit_export.runtime.bench.run import served_commands, take_turns

_EAGER_WORKER = "vivit_export.export.eager_worker"  # by name: importing it loads torch


def bench(
    bundle: Bundle | str | Path,
    *,
    engines: str | Sequence[str] = (),
    against: str | Sequence[str] = (),
    checkpoint: str | Path | None = None,
    device: str | None = None,
    cpu_precision: str | None = None,
    batches: int | Sequence[int] = (1,),
    rounds: int = 10,
    warmup: int = 2,
    others: Mapping[str, Sequence[str]] | None = None,
    video: str | Path | None = None,
    anyway: bool = False,
    progress: Progress | None = None,
) -> BenchReport:
    """Time contenders in turns; see `vivit_export.runtime.bench.run`.

    Args:
        bundle: a bundle or its folder.
        engines: names that `open_session` knows, or one; empty: every engine that runs on this machine.
        against: PyTorch modes, or one, see `parse_kind`; speeds are relative to the first.
        checkpoint: for these: what the bundle was exported from, if the bundle does not say so.
        device: see `open_session`.
        cpu_precision: see `open_session`.
        batches: clips per call, one or several sizes; an engine that takes fewer is called several times, as a
            session does.
        rounds: timed calls for each contender and batch.
        warmup: calls before the timed ones.
        others: more contenders by name, as for `take_turns`.
        video: for timing the steps from file to result; None leaves them out.
        anyway: also time contenders that are beyond the drift gate or cannot be checked.
        progress: receives each stage.

    Returns:
        The report; ``partial`` if Ctrl-C ended the run or a contender stopped.

    Raises:
        UsageError: there is nothing to time, or a number is out of range.
        InputError, EnvironmentFault: PyTorch, or an engine that you named, cannot run.
        EnvironmentFault: no contender can run on this machine.
    """
    engines, against = texts("engines", engines), texts("against", against)
    checkpoint = "" if checkpoint is None else name_of(checkpoint, "checkpoint")
    for kind in against:
        parse_kind(kind)
    source = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    eager = {
        f"pytorch {kind}": ["-m", _EAGER_WORKER, str(source.path), checkpoint, kind, str(device or "")]
        for kind in against
    }
    served = served_commands(source, engines, device, cpu_precision)
    return take_turns(
        {**eager, **served, **(others or {})},
        batches=batches,
        rounds=rounds,
        warmup=warmup,
        video=None if video is None else as_path(video, "video"),
        anyway=anyway,
        required={*eager, *engines},
        progress=progress,
    )


def save_bench(source: Bundle, report: BenchReport, progress: Progress) -> None:
    """Add a result to the bundle that was timed, and to its report.

    Raises:
        OutputError: the bundle was changed while it was timed, or cannot be written.
    """

    def add(work: Path, content: Content) -> Content:
        require_same(source, work, content, "timed")
        return replace(content, bench=report.record())

    amend(source.path, add, progress)

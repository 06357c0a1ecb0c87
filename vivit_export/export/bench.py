"""Time the engines of a bundle, and eager PyTorch beside them, in one run. Needs torch for the latter only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.progress import Progress
from vivit_export.runtime.bench.report import BenchReport, parse_kind
from vivit_export.runtime.bench.run import served_commands, take_turns

_EAGER_WORKER = "vivit_export.export.eager_worker"  # by name: importing it loads torch


def bench(
    bundle: Bundle | str | Path,
    *,
    engines: Sequence[str] = (),
    against: Sequence[str] = (),
    checkpoint: str | None = None,
    device: str | None = None,
    cpu_precision: str | None = None,
    batches: Sequence[int] = (1,),
    rounds: int = 10,
    warmup: int = 2,
    others: Mapping[str, Sequence[str]] | None = None,
    video: Path | None = None,
    anyway: bool = False,
    progress: Progress | None = None,
) -> BenchReport:
    """Time contenders in turns; see `vivit_export.runtime.bench.run`.

    Args:
        bundle: a bundle or its folder.
        engines: names that `open_session` knows; none: every engine that runs here.
        against: see `parse_kind`; the first one is what speeds are relative to.
        checkpoint: for these: what the bundle was exported from, where it does not say so itself.
        device: see `open_session`.
        cpu_precision: see `open_session`.
        batches: clips per call; an engine that takes fewer at once is called several times, as a session does.
        rounds: timed calls for each contender and batch.
        warmup: calls before these.
        others: more contenders by name, given as for `take_turns`.
        video: for the steps from a file to a result; they are left out where None.
        anyway: also time what is beyond the drift gate, or has nothing to be held to.
        progress: told about each stage.

    Returns:
        The report; ``partial`` where Ctrl-C came in between, or a contender was stopped on its way.

    Raises:
        UsageError: nothing, or nonsense, was asked for.
        EnvironmentFault: no contender can run here.
    """
    for kind in against:
        parse_kind(kind)
    source = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    eager = {
        f"pytorch {kind}": ["-m", _EAGER_WORKER, str(source.path), checkpoint or "", kind, device or ""]
        for kind in against
    }
    served = served_commands(source, engines, device, cpu_precision)
    return take_turns(
        {**eager, **served, **(others or {})},
        batches=batches,
        rounds=rounds,
        warmup=warmup,
        video=video,
        anyway=anyway,
        progress=progress,
    )

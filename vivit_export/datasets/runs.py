"""Run a job on Ray, into a folder of Parquet tables; what an interrupted run has done is not done again."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

from vivit_export import __version__
from vivit_export.datasets.cluster import LOCAL, connected
from vivit_export.datasets.engine import Engine, Probe, with_batch
from vivit_export.datasets.inputs import Inputs
from vivit_export.datasets.results import Record, Results, RunOf, check_results, kept_text, opened
from vivit_export.datasets.tables import Schema
from vivit_export.datasets.work import Job, Outcome, in_order
from vivit_export.errors import ClipError, EnvironmentFault, OutputError, counted
from vivit_export.files import json_text
from vivit_export.leftovers import remove_scratch
from vivit_export.progress import Progress
from vivit_export.records import JsonObject, to_json


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run has done.

    Attributes:
        path: the folder of results.
        inputs: what was named, for people.
        partitions: how many there are.
        done_before: how many of them an earlier run had done.
        rows: results.
        faults: clips that could not be used.
    """

    path: Path
    inputs: str
    partitions: int
    done_before: int
    rows: int
    faults: int

    def to_json(self) -> JsonObject:
        """Return JSON types."""
        return {field.name: to_json(getattr(self, field.name)) for field in fields(self)} | {"path": str(self.path)}

    def require(self) -> None:
        """Fail if a clip could not be used, as a single process does.

        Raises:
            ClipError: how many, and where they are named.
        """
        if self.faults:
            raise ClipError(
                f"{self.faults} of {counted(self.rows + self.faults, 'clips')} could not be used; "
                f"{self.path / 'faults'} names them, and {self.path / 'rows'} has the others"
            )


@dataclass(frozen=True, slots=True)
class Done:
    """A run that has come to its end.

    Attributes:
        summary: what it has done.
        probe: what the engine said of itself.
        rows: the tables of results, in order.
        faults: the tables of clips that could not be used, in order.
    """

    summary: Summary
    probe: Probe
    rows: Sequence[Path]
    faults: Sequence[Path]


def run_dataset(
    engine: type[Engine],
    job: Job,
    inputs: Inputs,
    path: Path,
    *,
    schema: Callable[[Probe], Schema],
    verb: str,
    address: str,
    gpu_share: float,
    readers: int | None,
    progress: Progress,
) -> Done:
    """Run a job on all inputs.

    Args:
        engine: kind of the engines.
        job: what is computed.
        inputs: on what.
        path: folder of results, which this process writes.
        schema: returns the columns of the results of an engine.
        verb: what is done, for people.
        address: as `choose_address` returns it.
        gpu_share: share of a GPU that an engine takes, above 0 to 1.
        readers: tasks that read at once; None: one per CPU.
        progress: receives each stage.

    Raises:
        OutputError: the folder holds something else, or the disk is full.
        EnvironmentFault: Ray or the engine is not available.
        KeyboardInterrupt: interrupted; whole partitions are kept.
    """
    of = RunOf(job.bundle_sha256, inputs.sha256, _options_sha256(job), 0)
    before = check_results(path, of)
    if before is not None and (done := _done_before(path, before, inputs, schema, progress)):
        return done
    remove_scratch(progress.note)
    with ExitStack() as stack:
        with progress.stage("start Ray" if address == LOCAL else "connect to Ray"):
            cluster = stack.enter_context(connected(address))
        with progress.stage("open the engine"):
            engines, gpus = cluster.engines(gpu_share, job.device)
            found = cluster.probe(engine, job, gpus)
        progress.note(f"{counted(engines, 'engines')} on {cluster.text}: {found.details}")
        job = with_batch(job, found)
        size = before.of.partition_size if before else inputs.partition_size(job.items)
        of, count = replace(of, partition_size=size), inputs.num_partitions(size)
        results = stack.enter_context(opened(path, of, count, found, schema(found), progress.note))
        done_before = results.extent.done
        todo = (p for p in inputs.partitions(size) if not results.is_done(p.number))
        outcomes = cluster.run(todo, engine, job, engines=engines, gpus=gpus, readers=readers)
        _collect(results, outcomes, verb, progress)
        return _done(results, inputs, found, done_before)


def _done_before(
    path: Path, before: Record, inputs: Inputs, schema: Callable[[Probe], Schema], progress: Progress
) -> Done | None:
    """Return what an earlier run has done if nothing is left to do, without Ray; None: something is left."""
    count, found = inputs.num_partitions(before.of.partition_size), before.probe
    if found is None or found.version != __version__ or before.extent.done != count:
        return None
    with opened(path, before.of, count, found, schema(found), progress.note) as results:
        if results.extent.done != count:
            return None  # somebody removed tables
        progress.note(f"all of {counted(count, 'partitions')} were done before, on {found.details}")
        return _done(results, inputs, found, count)


def _done(results: Results, inputs: Inputs, found: Probe, done_before: int) -> Done:
    now = results.extent
    summary = Summary(results.path, inputs.text, now.partitions, done_before, now.rows, now.faults)
    return Done(summary, found, *results.tables())


def _collect(results: Results, outcomes: Generator[Outcome, None, None], verb: str, progress: Progress) -> None:
    """Write each partition when all of its batches are there."""
    begun: dict[int, list[Outcome]] = defaultdict(list)
    left = results.extent.partitions - results.extent.done
    try:
        with progress.counting(verb, left, "partitions") as advance, closing(outcomes):
            for outcome in outcomes:
                if outcome.failure is not None:
                    raise outcome.failure
                parts = begun[outcome.partition]
                parts.append(outcome)
                if (complete := in_order(parts)) is not None:
                    del begun[outcome.partition]
                    results.write(outcome.partition, complete)
                    advance(1)
    except (KeyboardInterrupt, OutputError) as e:
        said = f"{e}; " if str(e) else ""
        raise type(e)(f"{said}{kept_text(results)}") from e
    except EnvironmentFault as e:
        raise EnvironmentFault(f"{e.sentence}; {kept_text(results)}") from e


def _options_sha256(job: Job) -> str:
    return hashlib.sha256(json_text([to_json(option) for option in job.options]).encode()).hexdigest()

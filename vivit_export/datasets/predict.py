"""Predict any number of videos on Ray, into a folder of Parquet tables."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

from vivit_export.bundle import MANIFEST, Bundle
from vivit_export.choices import CpuPrecision, Decode
from vivit_export.contract import Contract
from vivit_export.datasets.cluster import LOCAL, choose_address, connected, require_share
from vivit_export.datasets.inputs import find_inputs
from vivit_export.datasets.results import Results, RunOf, check_results, kept_text, opened
from vivit_export.datasets.work import Job, Outcome, in_order, with_batch
from vivit_export.errors import ClipError, EnvironmentFault, OutputError, counted
from vivit_export.files import as_path, json_text, sha256_of
from vivit_export.leftovers import remove_scratch
from vivit_export.progress import Progress
from vivit_export.records import JsonObject, to_json
from vivit_export.runtime.clips.views import ViewCropper
from vivit_export.runtime.clips.windows import WindowRule


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


def predict_dataset(
    bundle: Bundle,
    places: Sequence[Path],
    output: str | Path,
    *,
    contract: Contract,
    windows: WindowRule | None = None,
    engine: str | None = None,
    device: str | None = None,
    cpu_precision: CpuPrecision | None = None,
    self_test: bool = True,
    decode: Decode = "auto",
    readers: int | None = None,
    top_k: int = 5,
    signed_by: Sequence[Path] = (),
    identity: str | None = None,
    address: str = "",
    gpu_share: float = 1.0,
    progress: Progress,
) -> Summary:
    """Predict videos on Ray; what an interrupted run has done is not done again.

    Args:
        bundle: a verified bundle, in a folder that all machines see.
        places: see `find_inputs`; all machines see the videos by these names.
        output: folder of results, which this process writes.
        contract: of the bundle, or with other labels or sampling.
        windows: predict windows instead of whole videos.
        engine: see `open_session`, as ``device``, ``cpu_precision`` and ``self_test``.
        device: see there.
        cpu_precision: see there.
        self_test: see there.
        decode: how much of each video is decoded.
        readers: tasks that read at once; None: one per CPU.
        top_k: how many labels a row names.
        signed_by: see `open_session`, as ``identity``.
        identity: see there.
        address: see `choose_address`.
        gpu_share: share of a GPU that an engine takes, above 0 to 1.
        progress: receives each stage.

    Raises:
        UsageError: an option is out of range.
        ClipError: there is nothing to run.
        OutputError: the folder holds something else, or the disk is full.
        EnvironmentFault: Ray or the engine is not available.
        KeyboardInterrupt: interrupted; whole partitions are kept.
    """
    require_share(gpu_share)
    where, path = choose_address(address), as_path(output, "output")
    if windows is None:
        ViewCropper(contract)  # views that are impossible are no fault of a clip
    with progress.stage("find the inputs"):
        inputs = find_inputs(places, progress.note)
        inputs_sha256 = inputs.sha256
    job = Job(
        os.getcwd(), str(bundle.path.absolute()), sha256_of(bundle.path / MANIFEST), contract, windows, engine, device,
        cpu_precision, self_test, decode, tuple(p.absolute() for p in signed_by), identity, top_k,
    )  # fmt: skip
    of = RunOf(job.bundle_sha256, inputs_sha256, _options_sha256(job), 0)
    before = check_results(path, of)
    remove_scratch(progress.note)
    with ExitStack() as stack:
        with progress.stage("start Ray" if where == LOCAL else "connect to Ray"):
            cluster = stack.enter_context(connected(where))
        with progress.stage("open the engine"):
            engines, gpus = cluster.engines(gpu_share, device)
            found = cluster.probe(job, gpus)
        progress.note(f"{counted(engines, 'engines')} on {cluster.text}: {found.details}")
        job = with_batch(job, found)
        size = before.partition_size if before else inputs.partition_size(job.items)
        of = replace(of, partition_size=size)
        results = stack.enter_context(opened(path, of, inputs.num_partitions(size), found.details, progress.note))
        done_before = results.extent.done
        todo = (p for p in inputs.partitions(size) if not results.is_done(p.number))
        outcomes = cluster.run(todo, job, engines=engines, gpus=gpus, readers=readers)
        _collect(results, outcomes, contract, progress)
        now = results.extent
    return Summary(path, inputs.text, now.partitions, done_before, now.rows, now.faults)


def _collect(
    results: Results, outcomes: Generator[Outcome, None, None], contract: Contract, progress: Progress
) -> None:
    """Write each partition when all of its batches are there."""
    begun: dict[int, list[Outcome]] = defaultdict(list)
    left = results.extent.partitions - results.extent.done
    try:
        with progress.counting("predict", left, "partitions") as advance, closing(outcomes):
            for outcome in outcomes:
                if outcome.failure is not None:
                    raise outcome.failure
                parts = begun[outcome.partition]
                parts.append(outcome)
                if (complete := in_order(parts)) is not None:
                    del begun[outcome.partition]
                    results.write(outcome.partition, complete, contract)
                    advance(1)
    except (KeyboardInterrupt, OutputError) as e:
        said = f"{e}; " if str(e) else ""
        raise type(e)(f"{said}{kept_text(results)}") from e
    except EnvironmentFault as e:
        raise EnvironmentFault(f"{e.sentence}; {kept_text(results)}") from e


def _options_sha256(job: Job) -> str:
    """Return a hash of what results depend on, besides the bundle and the inputs."""
    chosen = [
        to_json(job.contract),
        to_json(job.windows),
        job.engine,
        job.device,
        job.cpu_precision,
        job.decode,
        job.top_k,
    ]
    return hashlib.sha256(json_text(chosen).encode()).hexdigest()

"""What the processes of a cluster do: read a partition to batches, and run batches. Nothing here knows Ray.

A partition is a part of the inputs whose results are one file. Its batches are those of a single process: as many clips
as the engine takes at once, unusable ones counted, so results are equal bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export import __version__
from vivit_export.bundle import MANIFEST, Bundle, read_bundle
from vivit_export.bundle.signatures.verify import require_signature as require_signer
from vivit_export.choices import CpuPrecision, Decode
from vivit_export.contract import Contract
from vivit_export.cores import usable_cores
from vivit_export.datasets.inputs import Clip, Partition, open_clips
from vivit_export.errors import BundleError, ClipError, VivitExportError
from vivit_export.files import sha256_of
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.clips.windows import WindowRule
from vivit_export.runtime.predict import Item, VideoPrediction, result_of, rows_of_each, works_of
from vivit_export.runtime.select import open_session
from vivit_export.runtime.session.backend import Float32
from vivit_export.runtime.session.onnxruntime import sharing_cores
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.session.session import Session

Rows = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Job:
    """What is computed; every process of a run gets it.

    Attributes:
        folder: the caller's working folder, to which relative paths belong.
        bundle: absolute path of the bundle, which every machine must see.
        bundle_sha256: of its manifest, which lists the hash of every other file.
        contract: of the model, as the options change it.
        windows: predict windows instead of whole videos.
        engine: as for `open_session`, as ``device``, ``cpu_precision`` and ``self_test``.
        device: see there.
        cpu_precision: see there.
        self_test: see there.
        decode: how much of each video is decoded.
        signed_by: as for `open_session`: PEM files, by absolute path.
        identity: see there.
        top_k: how many labels a row names.
        items: videos or windows in a batch.
    """

    folder: str
    bundle: str
    bundle_sha256: str
    contract: Contract
    windows: WindowRule | None = None
    engine: str | None = None
    device: str | None = None
    cpu_precision: CpuPrecision | None = None
    self_test: bool = True
    decode: Decode = "auto"
    signed_by: tuple[Path, ...] = ()
    identity: str | None = None
    top_k: int = 5
    items: int = 1

    @property
    def rows(self) -> int:
        """Rows of a batch that lead to one prediction."""
        return rows_of_each(self.contract, self.windows)


@dataclass(frozen=True, slots=True)
class Fault:
    """A clip that could not be used.

    Attributes:
        clip: its number in the inputs, or in its shard.
        video: its name.
        sentence: why.
        code: the exit code that a single process would end with.
    """

    clip: int
    video: str
    sentence: str
    code: int


@dataclass(frozen=True, slots=True)
class Place:
    """What one prediction is of.

    Attributes:
        clip: number of the video in the inputs, or in its shard.
        video: its name.
        window: number of the window, or None for the whole video.
        span_seconds: (start, end) of the window.
    """

    clip: int
    video: str
    window: int | None
    span_seconds: tuple[float, float] | None


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One prediction.

    Attributes:
        place: what it is of.
        best: the most probable labels, with their scores.
        outputs: of the model, float32, by name.
    """

    place: Place
    best: tuple[tuple[str, float], ...]
    outputs: dict[str, Float32]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a reader hands to an engine.

    Attributes:
        partition: its number.
        number: of the batch in it.
        is_last: whether none follows.
        places: of the usable clips, in order.
        faults: of the others.
        rows: for the graph: (places * rows of each, ...).
        failure: what ends the whole run.
    """

    partition: int
    number: int
    is_last: bool
    places: tuple[Place, ...]
    faults: tuple[Fault, ...]
    rows: Rows
    failure: VivitExportError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What an engine hands back for a batch; see `Batch`.

    Attributes:
        partition: see there.
        number: see there.
        is_last: see there.
        results: of the usable clips.
        faults: see there.
        failure: see there.
    """

    partition: int
    number: int
    is_last: bool
    results: tuple[Row, ...]
    faults: tuple[Fault, ...]
    failure: VivitExportError | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """What an engine said when it was opened for a trial.

    Attributes:
        version: of this package, there.
        details: of the session, for people.
        engine: its name.
        batch: the most clips that it runs at once.
        failure: why it cannot be opened.
    """

    version: str
    details: str = ""
    engine: str = ""
    batch: int = 1
    failure: VivitExportError | None = None


def read_batches(partition: Partition, job: Job) -> Iterator[Batch]:
    """Read a partition with one thread; the last batch, which may hold no clip, says so.

    An error that is no clip's fault is the failure of the batch that it came up in, which is the last then.
    """
    if os.path.isdir(job.folder):
        os.chdir(job.folder)  # as where the command was given, so that names mean the same, also in messages
    number = 0
    batch = _Filling(job)
    try:
        for clip, place, work_fill in _fills(partition, job):
            batch.add(clip, place, work_fill)
            if batch.is_full:
                yield batch.taken(partition.number, number, is_last=False)
                number, batch = number + 1, _Filling(job)
    except VivitExportError as e:
        yield Batch(partition.number, number, True, (), (), np.empty(0, np.uint8), e)
        return
    yield batch.taken(partition.number, number, is_last=True)


def _fills(partition: Partition, job: Job) -> Iterator[tuple[Clip, Place, Any]]:
    reading = Reading(job.decode, threads=1)
    readers = usable_cores()  # of all processes: one thread for each decoder
    for clip in open_clips(partition):
        if clip.error is not None:
            yield clip, Place(clip.number, clip.name, None, None), partial(_fail, clip.error)
            continue
        for number, work in enumerate(works_of([clip.path], job.contract, job.windows, reading, readers)):
            span = work.key.span_seconds
            yield clip, Place(clip.number, clip.name, None if span is None else number, span), work.fill


def _fail(error: ClipError, _rows: Rows) -> None:
    raise error


class _Filling:
    """A batch that is being filled.

    Args:
        job: says of what shape, and how many items it takes.
    """

    def __init__(self, job: Job) -> None:
        tensor = job.contract.io.inputs[0]
        self._each, self._items = job.rows, job.items
        self._memory = np.empty((job.items * job.rows, *(int(d) for d in tensor.shape[1:])), np.dtype(tensor.dtype))
        self._places: list[Place] = []
        self._faults: list[Fault] = []

    @property
    def is_full(self) -> bool:
        """Whether it has as many items as an engine takes, unusable ones counted: as those of a single process."""
        return len(self._places) + len(self._faults) == self._items

    def add(self, clip: Clip, place: Place, fill: Any) -> None:
        """Fill the next rows; an unusable clip leaves them to the next."""
        start = len(self._places) * self._each
        try:
            fill(self._memory[start : start + self._each])
        except ClipError as e:
            self._faults.append(Fault(clip.number, clip.name, clip.named(str(e)), e.exit_code))
        else:
            self._places.append(place)

    def taken(self, partition: int, number: int, is_last: bool) -> Batch:
        """Return what it holds."""
        rows = self._memory[: len(self._places) * self._each]
        return Batch(partition, number, is_last, tuple(self._places), tuple(self._faults), rows)


def open_bundle(job: Job) -> Bundle:
    """Read and verify the bundle of a job on this machine.

    Raises:
        BundleError: it is not there, damaged, or another than where the command was given.
        SignatureError: it is not signed by whom it must be signed by.
    """
    bundle = read_bundle(job.bundle)
    if sha256_of(bundle.path / MANIFEST) != job.bundle_sha256:
        raise BundleError(
            f"{job.bundle} is another bundle on {os.uname().nodename} than where the command was given; give a folder "
            "that all machines share"
        )
    require_signer(bundle, job.signed_by or None, job.identity)
    return bundle


def _opened(job: Job) -> Session:
    on = (job.engine, job.device, job.cpu_precision)
    with sharing_cores():
        return open_session(open_bundle(job), *on, self_test=job.self_test)


def probe(job: Job) -> Probe:
    """Open the engine of a job on this machine for a moment, and say what it is or why it cannot be opened."""
    try:
        with _opened(job) as session:
            return Probe(__version__, session.details, session.engine, session.batches[1])
    except VivitExportError as e:
        return Probe(__version__, failure=e)


class Engine:
    """Runs batches on one engine, which is opened when the first one comes.

    Args:
        job: says which.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._session: Session | None = None

    def run(self, batch: Batch) -> Outcome:
        """Run a batch; an error is the outcome's failure."""
        try:
            results = () if batch.failure or not batch.places else tuple(self._results(batch))
        except VivitExportError as e:
            return Outcome(batch.partition, batch.number, batch.is_last, (), batch.faults, e)
        return Outcome(batch.partition, batch.number, batch.is_last, results, batch.faults, batch.failure)

    def _results(self, batch: Batch) -> Iterator[Row]:
        job = self._job
        if self._session is None:
            self._session = _opened(job)
        outputs, each = self._session.run(batch.rows), job.rows
        for number, place in enumerate(batch.places):
            mine = {name: array[number * each : (number + 1) * each] for name, array in outputs.items()}
            result = result_of(Item(Path(place.video), place.span_seconds), mine, job.contract)
            assert isinstance(result, VideoPrediction)
            yield _row(place, result.prediction, job.top_k)


def _row(place: Place, prediction: Prediction, top_k: int) -> Row:
    found = {"logits": prediction.logits, "embedding": prediction.embedding}
    outputs = {name: array for name, array in found.items() if array is not None}
    return Row(place, tuple(prediction.top(top_k)) if prediction.logits is not None else (), outputs)


def with_batch(job: Job, found: Probe) -> Job:
    """Return the job with batches of the size that an engine runs at once: as a session chooses it."""
    return replace(job, items=1 if found.engine == "triton" else max(1, found.batch // job.rows))


def in_order(outcomes: Sequence[Outcome]) -> list[Outcome] | None:
    """Return the outcomes of a partition by their number, or None while some are missing."""
    found = sorted(outcomes, key=lambda outcome: outcome.number)
    complete = bool(found) and found[-1].is_last and len(found) == found[-1].number + 1
    return found if complete else None

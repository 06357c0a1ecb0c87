"""Run batches on an engine: an actor on Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from vivit_export import __version__
from vivit_export.bundle import MANIFEST, Bundle, read_bundle
from vivit_export.bundle.checks import Parity
from vivit_export.bundle.signatures.verify import require_signature as require_signer
from vivit_export.datasets.work import Batch, Job, Outcome, Place, Row
from vivit_export.errors import BundleError, VivitExportError
from vivit_export.files import sha256_of
from vivit_export.runtime.predict import Item, VideoPrediction, result_of
from vivit_export.runtime.select import open_session
from vivit_export.runtime.session.onnxruntime import sharing_cores
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.session.session import Session


@dataclass(frozen=True, slots=True)
class Probe:
    """What an engine said when it was opened for a trial.

    Attributes:
        version: of this package, there.
        details: of the session, for people.
        engine: its name.
        batch: the most clips that it runs at once.
        reference: the eager model that runs beside it, for people; empty: none does.
        emulated: what emulates the rounding of the engine's types beside it; empty: nothing.
        parity: comparisons of preprocessed pixels on a few clips.
    """

    version: str
    details: str
    engine: str
    batch: int
    reference: str = ""
    emulated: str = ""
    parity: tuple[Parity, ...] = ()


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


class Engine:
    """Runs batches on one engine, which is opened when it is needed.

    Args:
        job: says which.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle; see `open_bundle`."""
        return open_bundle(self.job)

    @cached_property
    def session(self) -> Session:
        """The engine."""
        job = self.job
        with sharing_cores():
            return open_session(self.bundle, job.engine, job.device, job.cpu_precision, self_test=job.self_test)

    def probe(self) -> Probe:
        """Say what the engine is, and close it.

        Raises:
            VivitExportError: why it cannot be opened.
        """
        with self.session as session:
            return Probe(__version__, session.details, session.engine, session.batches[1])

    def run(self, batch: Batch) -> Outcome:
        """Run a batch; an error is the outcome's failure."""
        try:
            results = () if batch.failure or not batch.places else tuple(self.results(batch))
        except VivitExportError as e:
            return Outcome(batch.partition, batch.number, batch.is_last, (), batch.faults, e)
        return Outcome(batch.partition, batch.number, batch.is_last, results, batch.faults, batch.failure)

    def results(self, batch: Batch) -> Iterator[Row]:
        """Yield the results of a batch that has clips."""
        job = self.job
        outputs, each = self.session.run(batch.rows), job.rows
        for number, place in enumerate(batch.places):
            mine = {name: array[number * each : (number + 1) * each] for name, array in outputs.items()}
            result = result_of(Item(Path(place.video), place.span_seconds), mine, job.contract)
            assert isinstance(result, VideoPrediction)
            yield _row(place, result.prediction, job.top_k)


def probe(engine: type[Engine], job: Job) -> tuple[str, Probe | VivitExportError]:
    """Open the engine of a job on this machine for a moment.

    Returns:
        The version of this package, and what the engine is or why it cannot be opened.
    """
    try:
        return __version__, engine(job).probe()
    except VivitExportError as e:
        return __version__, e


def _row(place: Place, prediction: Prediction, top_k: int) -> Row:
    found = {"logits": prediction.logits, "embedding": prediction.embedding}
    outputs = {name: array for name, array in found.items() if array is not None}
    return Row(place, tuple(prediction.top(top_k)) if prediction.logits is not None else (), outputs)


def with_batch(job: Job, found: Probe) -> Job:
    """Return the job with batches of the size that an engine runs at once: as a session chooses it."""
    return replace(job, items=1 if found.engine == "triton" else max(1, found.batch // job.rows))

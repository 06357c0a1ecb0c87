"""A stand-in for Ray that runs everything in this process, partition after partition."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from vivit_export.datasets import runs
from vivit_export.datasets.engine import Engine, Probe, probe
from vivit_export.datasets.inputs import Partition
from vivit_export.datasets.reading import read_batches
from vivit_export.datasets.work import Job, Outcome
from vivit_export.errors import VivitExportError


class OneProcess:
    """What `Cluster` is, without Ray; ``after`` is called after each batch."""

    text = "one process"

    def __init__(self, after: Callable[[Outcome], object] = bool) -> None:
        self._after = after

    def probe(self, engine: type[Engine], job: Job, _gpus: float) -> Probe:
        _, found = probe(engine, job)
        if isinstance(found, VivitExportError):
            raise found
        return found

    def engines(self, _share: float, _device: str | None) -> tuple[int, float]:
        return 1, 0.0

    def run(
        self, partitions: Iterator[Partition], kind: type[Engine], job: Job, **_options: object
    ) -> Generator[Outcome, None, None]:
        engine = kind(job)
        for partition in partitions:
            for batch in read_batches(partition, job):
                outcome = engine.run(batch)
                self._after(outcome)
                yield outcome


def use_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing run on Ray."""

    def connected(address: str) -> NoReturn:
        raise AssertionError(f"Ray at {address!r} was started")

    monkeypatch.setattr(runs, "connected", connected)


def use_one_process(monkeypatch: pytest.MonkeyPatch, after: Callable[[Outcome], object] = bool) -> None:
    """Let runs on Ray take place here."""

    @contextmanager
    def connected(_address: str) -> Iterator[OneProcess]:
        yield OneProcess(after)

    monkeypatch.setattr(runs, "connected", connected)

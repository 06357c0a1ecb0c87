"""Read a partition to batches: a task on Ray."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from vivit_export.cores import usable_cores
from vivit_export.datasets.inputs import Clip, Partition, open_clips
from vivit_export.datasets.work import Batch, Fault, Job, Place, Rows
from vivit_export.errors import ClipError, VivitExportError
from vivit_export.runtime.clips.processes import in_this_process
from vivit_export.runtime.clips.video.facts import video_facts
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.predict import works_of


def read_batches(partition: Partition, job: Job) -> Iterator[Batch]:
    """Read a partition with one thread; the last batch, which may hold no clip, says so.

    An error that is not a clip's fault is the failure of the batch that it came up in, which is the last then.
    """
    job.enter_folder()
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
    # All processes read at once: one thread for each decoder.
    read = in_this_process(job.contract, reading, usable_cores())
    for clip in open_clips(partition):
        if clip.error is not None:
            yield clip, Place(clip.number, clip.name, None, None), partial(_fail, clip.error)
            continue
        for number, work in enumerate(works_of([clip.path], job.contract, job.windows, reading, read)):
            span = work.key.span_seconds
            facts = video_facts(clip.path) if job.reference else None
            yield clip, Place(clip.number, clip.name, None if span is None else number, span, facts), work.fill


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

"""The folder of results of a run: one table for each partition, written once, and what the run is of.

::

    run.json                     what is run on what, and how much of it is done
    rows/part-000000.parquet     the results of a partition; it exists once the partition is done
    faults/part-000000.parquet   its clips that could not be used, if there are any; written before

A run that was cut short goes on where it was: what exists is done. A folder of another run is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vivit_export import leftovers
from vivit_export.datasets.engine import Probe
from vivit_export.datasets.tables import Schema, rows_of, write_faults, write_rows
from vivit_export.datasets.work import Outcome
from vivit_export.errors import OutputError, counted, option
from vivit_export.files import json_text, refusals, regular_text, require_writable, write_json
from vivit_export.locking import locked
from vivit_export.records import from_json, parse_json, to_json

FORMAT = "vivit-results/1"
RUN = "run.json"
_ROWS, _FAULTS = "rows", "faults"
_MOST_BYTES = 1 << 20
_TABLE = re.compile(r"part-(\d{6,})\.parquet")
_UNFINISHED = re.compile(r"\.(part-\d{6,}\.parquet|run\.json)\.vivit-[0-9a-f]+\.part")


@dataclass(frozen=True, slots=True)
class RunOf:
    """What a run is of. Two runs with equal ones have equal results.

    Attributes:
        bundle: hash of the bundle's manifest.
        inputs: hash of the names of all videos.
        options: hash of everything else that results depend on: contract, windows, labels, top k, engine.
        partition_size: videos in a partition.
    """

    bundle: str
    inputs: str
    options: str
    partition_size: int

    @property
    def key(self) -> str:
        """A hash of all."""
        return hashlib.sha256(json_text(to_json(self)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a run is.

    Attributes:
        partitions: how many there are.
        done: how many of them are written.
        rows: in the tables of results.
        faults: clips that could not be used.
    """

    partitions: int
    done: int = 0
    rows: int = 0
    faults: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """The content of ``run.json``, besides its format.

    Attributes:
        of: what the run is of.
        engine: what runs it, for people.
        extent: how far it is.
        probe: what the engine said of itself; None: an earlier version wrote the folder.
    """

    of: RunOf
    engine: str
    extent: Extent
    probe: Probe | None = None


_NAMES = {"bundle": "another bundle", "inputs": "other inputs", "options": "other options"}


class Results:
    """The folder of results of one run; open it with `opened`.

    Args:
        path: the folder.
        of: what the run is of.
        partitions: how many there are.
        probe: what the engine said of itself.
        schema: columns of the tables of results.

    Attributes:
        extent: how far it is.
    """

    def __init__(self, path: Path, of: RunOf, partitions: int, probe: Probe, schema: Schema) -> None:
        self.path, self.extent = path, Extent(partitions)
        self._of, self._probe, self._schema = of, probe, schema
        self._done: set[int] = set()

    def begin(self, note: Callable[[str], object]) -> None:
        """Make the folders, or find out what is done.

        Raises:
            OutputError: the folder cannot be written, or holds a table of another run.
        """
        with refusals(self.path, any_reason=True):
            for folder in (self.path, self.path / _ROWS, self.path / _FAULTS):
                folder.mkdir(exist_ok=True)
                _remove_unfinished(folder, note)
            numbers = sorted(
                int(found[1]) for name in os.listdir(self.path / _ROWS) if (found := _TABLE.fullmatch(name))
            )
        for number in numbers:
            faults = self._table(_FAULTS, number)
            num_faults = rows_of(faults, self._of.key) if faults.exists() else 0
            self._add(number, rows_of(self._table(_ROWS, number), self._of.key), num_faults)
        self.save()

    def is_done(self, number: int) -> bool:
        """Whether a partition is written."""
        return number in self._done

    def tables(self) -> tuple[list[Path], list[Path]]:
        """Return the tables of results and those of faults, in the order of the partitions that are written."""
        numbers = sorted(self._done)
        faults = [self._table(_FAULTS, number) for number in numbers]
        return [self._table(_ROWS, number) for number in numbers], [path for path in faults if path.exists()]

    def write(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Write a partition; a fault first, so that it is done only when both tables are there.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        faults = [fault for outcome in outcomes for fault in outcome.faults]
        rows = [row for outcome in outcomes for row in outcome.results]
        place = self._table(_FAULTS, number)
        place.unlink(missing_ok=True)  # of a run that ended between the two
        if faults:
            write_faults(place, faults, self._of.key)
        try:
            write_rows(self._table(_ROWS, number), rows, self._schema, self._of.key)
        except BaseException:
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
            raise
        self._add(number, len(rows), len(faults))

    def save(self) -> None:
        """Write down how far the run is.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        with refusals(self.path, any_reason=True):
            record = to_json(Record(self._of, self._probe.details, self.extent, self._probe))
            write_json(self.path / RUN, {"format": FORMAT, **record})

    def _add(self, number: int, rows: int, faults: int) -> None:
        self._done.add(number)
        now = self.extent
        self.extent = replace(now, done=now.done + 1, rows=now.rows + rows, faults=now.faults + faults)

    def _table(self, kind: str, number: int) -> Path:
        return self.path / kind / f"part-{number:06}.parquet"


def check_results(path: Path, of: RunOf | None = None) -> Record | None:
    """Refuse a folder that results cannot go to, and return what it holds.

    Args:
        path: the folder; it need not exist.
        of: what the run is of; its size of partitions does not matter. None: not known yet.

    Raises:
        OutputError: it is not a folder, holds something else or the results of another run, or cannot be written.
    """
    with refusals(path, any_reason=True):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} exists and is not a folder; choose another name")
        require_writable(path, path)
        if not path.exists() or not any(path.iterdir()):
            return None
    found = _read(path)
    if of is not None:
        for name, words in _NAMES.items():
            if getattr(of, name) != getattr(found.of, name):
                raise OutputError(
                    f"{path} holds the results of {words}, with which these cannot be mixed; choose another folder "
                    f"with {option('output')}, or remove that one"
                )
    return found


def _read(path: Path) -> Record:
    place = path / RUN
    try:
        content = parse_json(regular_text(place, _MOST_BYTES))
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
    except (OSError, ValueError) as e:
        raise OutputError(f"{path} exists and holds no results of a run on Ray ({e}); choose another folder") from e
    return from_json(Record, content, str(place))


@contextmanager
def opened(
    path: Path, of: RunOf, partitions: int, probe: Probe, schema: Schema, note: Callable[[str], object]
) -> Iterator[Results]:
    """Make the folder of a run, or go on with it; nobody else can meanwhile.

    Args:
        path: the folder.
        of: what the run is of.
        partitions: how many there are.
        probe: what the engine said of itself.
        schema: columns of the tables of results.
        note: told of what an interrupted run left, which is removed, and of waiting for another one.

    Raises:
        OutputError: as for `check_results`.
    """
    with refusals(path, any_reason=True):
        os.makedirs(path, exist_ok=True)
    with locked(path, note):
        check_results(path, of)
        results = Results(path, of, partitions, probe, schema)
        results.begin(note)
        try:
            yield results
        finally:
            with contextlib.suppress(OutputError):  # a full disk is what ended the run then, and told
                results.save()


def kept_text(results: Results) -> str:
    """Say what an unfinished run has left, and how it goes on."""
    now = results.extent
    return (
        f"{now.done} of {counted(now.partitions, 'partitions')} are kept in {results.path}; the same command goes on "
        "with the others"
    )


def _remove_unfinished(folder: Path, note: Callable[[str], object]) -> None:
    for name in os.listdir(folder):
        if found := _UNFINISHED.fullmatch(name):
            leftovers.remove_leftovers(folder / found[1], note)

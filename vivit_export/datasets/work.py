"""What the processes of a run on Ray hand to each other. Nothing here knows Ray.

A partition is a part of the inputs whose results are one file. Its batches are those of a single process: as many clips
as the engine takes at once, unusable ones counted, so results are equal bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.clip_view import VideoFacts
from vivit_export.choices import CpuPrecision, Decode
from vivit_export.contract import Contract
from vivit_export.datasets.inputs import Partition
from vivit_export.errors import VivitExportError
from vivit_export.runtime.clips.windows import WindowRule
from vivit_export.runtime.predict import rows_of_each

Float32 = npt.NDArray[np.float32]
Rows = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class EagerReference:
    """What a check holds the results of an engine to.

    Attributes:
        checkpoint: of the eager model; see `load_exported_checkpoint`.
        sample: videos on which preprocessing is compared too.
    """

    checkpoint: str | None
    sample: Partition


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
        reference: what a check compares with; None: nothing is compared.
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
    reference: EagerReference | None = None

    @property
    def options(self) -> list[object]:
        """What results depend on, besides the bundle and the inputs."""
        on = (self.engine, self.device, self.cpu_precision)
        return [self.contract, self.windows, *on, self.decode, self.top_k, *(["check"] if self.reference else [])]

    def enter_folder(self) -> None:
        """Make relative paths mean what they do where the command was given, also in messages."""
        if os.path.isdir(self.folder):
            os.chdir(self.folder)

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
        facts: what the header of the video says; of a check.
    """

    clip: int
    video: str
    window: int | None
    span_seconds: tuple[float, float] | None
    facts: VideoFacts | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One prediction.

    Attributes:
        place: what it is of.
        best: the most probable labels, with their scores.
        outputs: of the model, float32, by name; of a check, those of each run.
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


def in_order(outcomes: Sequence[Outcome]) -> list[Outcome] | None:
    """Return the outcomes of a partition by their number, or None while some are missing."""
    found = sorted(outcomes, key=lambda outcome: outcome.number)
    complete = bool(found) and found[-1].is_last and len(found) == found[-1].number + 1
    return found if complete else None

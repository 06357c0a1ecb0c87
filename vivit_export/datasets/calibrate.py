"""Calibrate on Ray: this process reads the clips and adds up, other processes run the float32 graph on batches of them.

The graph takes nearly all of the time. What is observed of a batch, and the order in which it is added up, are those of
a single process (`vivit_export.calibration.collect`), so the ranges are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.calibration.cache import Observed
from vivit_export.calibration.collect import Batch, Observer
from vivit_export.datasets.cluster import choose_address, connected, require_share
from vivit_export.errors import EnvironmentFault, counted
from vivit_export.leftovers import scratch
from vivit_export.progress import Progress

Files = dict[str, npt.NDArray[Any]]


class ObservingOnRay:
    """Where batches are observed; an `Observing`.

    Args:
        address: see `choose_address`.
        gpu_share: share of a GPU that an engine takes, above 0 to 1.
        progress: receives each stage.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(self, address: str, gpu_share: float, progress: Progress) -> None:
        require_share(gpu_share)
        self._address, self._gpu_share, self._progress = choose_address(address), gpu_share, progress

    def __call__(
        self, model: Path, tensors: Sequence[str], rows_per_clip: int, batches: Iterator[Batch]
    ) -> Generator[dict[str, Observed], None, None]:
        """Yield the observations of each batch, in order.

        Raises:
            MissingDependencyError, EnvironmentFault: see `connected`; or Ray gave up.
            CalibrationError: see `vivit_export.calibration.collect.observe`.
        """
        # Other machines do not see this file, so it is sent.
        files: Files = {path.name: np.fromfile(path, np.uint8) for path in model.parent.iterdir() if path.is_file()}
        with connected(self._address) as cluster:
            cluster.require_version()
            engines, gpus = cluster.engines(self._gpu_share, None)
            self._progress.note(f"{counted(engines, 'engines')} on {cluster.text}")
            make = partial(_observer, files, model.name, tuple(tensors), rows_per_clip)
            try:
                yield from cluster.in_order(make, batches, engines=engines, gpus=gpus)
            except EnvironmentFault as e:
                raise EnvironmentFault(f"{e.sentence}; the clips done so far are kept") from e


def _observer(files: Files, name: str, tensors: Sequence[str], rows_per_clip: int) -> Callable[[Batch], Any]:
    with scratch() as folder:  # the session has read all when it is open
        for file, content in files.items():
            content.tofile(folder / file)
        return Observer(folder / name, tensors, rows_per_clip)

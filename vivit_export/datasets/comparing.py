"""Run batches on an engine and on the eager model, side by side: an actor on Ray.

What `vivit_export.export.recheck` does with a few clips in one process, for any number of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.checks import Parity
from vivit_export.cores import spare_waiting_threads, usable_cores
from vivit_export.datasets.engine import Engine, Probe
from vivit_export.datasets.inputs import open_clips
from vivit_export.datasets.work import Batch, Job, Row
from vivit_export.errors import ClipError
from vivit_export.export.reference import load_exported_checkpoint, move_beside
from vivit_export.precision import Precision
from vivit_export.runtime import Preprocessor, read_clip
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.drift.over_views import averaged
from vivit_export.runtime.drift.parity import bundle_parity
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.select import CPU_ENGINES
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession, sharing_cores

if TYPE_CHECKING:
    from vivit_export.export.checkpoint.load import Checkpoint

ENGINE, REFERENCE, EMULATED = "", "reference_", "emulated_"
"""What the names of the outputs of each run begin with."""
_MOST_COMPARED = 8  # clips, by transformers' processor and by ours


def runs_of(probe: Probe) -> tuple[str, ...]:
    """Return what the names of the outputs begin with, by the runs beside an engine."""
    return (REFERENCE, ENGINE, EMULATED) if probe.emulated else (REFERENCE, ENGINE)


class ComparingEngine(Engine):
    """Runs each batch on the engine and on the eager model.

    Like a check in one process, it also runs a graph that emulates the rounding of the engine's types, if the engine
    does not round.
    """

    def __init__(self, job: Job) -> None:
        spare_waiting_threads()
        super().__init__(job)

    @cached_property
    def _eager(self) -> Checkpoint:
        reference = self.job.reference
        assert reference is not None
        loaded = load_exported_checkpoint(self.bundle, reference.checkpoint)
        move_beside(loaded, self.job.device)
        from vivit_export.export.checkpoint.load import use_cores

        use_cores(usable_cores())  # Ray would have one thread compute, while readers wait for it
        if loaded.device.type != "cpu":  # a GPU without the memory is found out before the report names it
            clip = loaded.clip
            loaded.run_eager(np.zeros((1, clip.num_frames, 3, clip.height, clip.width), np.float32))
        return loaded

    @cached_property
    def _emulated(self) -> OnnxRuntimeSession | None:
        if self.session.engine not in CPU_ENGINES or not self.bundle.precision.rounds:
            return None
        from vivit_export.export.graph.emulate import emulated_session
        from vivit_export.export.graph.load import load_verified

        with sharing_cores(), emulated_session(load_verified(self.bundle)) as session:
            return session  # it has read all of its file

    def probe(self) -> Probe:
        """Say what both are; see `Engine.probe`.

        Raises:
            UsageError, CheckpointError: see `load_exported_checkpoint`.
            VivitExportError: why the engine cannot be opened.
        """
        self.job.enter_folder()
        eager = self._eager  # before the engine, because a wrong checkpoint is the user's own mistake
        emulated = f"{self._emulated.name}, {self.bundle.precision.emulated}" if self._emulated else ""
        reference = f"eager fp32, {eager.framework}"
        return replace(super().probe(), reference=reference, emulated=emulated, parity=tuple(self._parity()))

    def results(self, batch: Batch) -> Iterator[Row]:
        """Yield the outputs of all runs on a batch that has clips, averaged over the views of each."""
        runs: dict[str, Outputs] = {
            ENGINE: self.session.run(batch.rows),
            REFERENCE: self._eager.run_eager(self._pixels(batch.rows), Precision.FP32),
        }
        if self._emulated is not None:
            runs[EMULATED] = self._emulated.run_in_batches(batch.rows, 1)
        names = [tensor.name for tensor in self.job.contract.io.outputs]
        means = {run: averaged({name: outputs[name] for name in names}, self.job.rows) for run, outputs in runs.items()}
        for number, place in enumerate(batch.places):
            yield Row(place, (), {f"{run}{name}": a[number] for run, mean in means.items() for name, a in mean.items()})

    def _pixels(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        contract = self.job.contract
        preprocessor = Preprocessor(contract.clip, contract.preprocess)
        if contract.io.mode == "pixels":
            return rows
        crops = rows if contract.io.mode == "crops" else np.stack([preprocessor.crops(clip) for clip in rows])
        return preprocessor.to_pixels(crops)

    def _parity(self) -> Iterator[Parity]:
        from vivit_export.export.check import compare_processor

        contract, clips = self.bundle.contract, list(islice(self._sampled(), _MOST_COMPARED))
        if not clips:
            return
        yield compare_processor(contract, clips)
        preprocessor = Preprocessor(contract.clip, contract.preprocess)
        whole, size = contract.io.mode == "frames", contract.io.frame_size
        fitting = [
            clip if whole else preprocessor.crops(clip) for clip in clips if not whole or clip.shape[1:3] == size
        ]
        if fitting and (in_graph := bundle_parity(self.bundle, np.stack(fitting))) is not None:
            yield in_graph

    def _sampled(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the frames of some usable clips, uint8 (T, h, w, 3)."""
        reference = self.job.reference
        assert reference is not None
        for clip in open_clips(reference.sample):
            try:
                if clip.error is None:
                    yield read_clip(clip.path, self.bundle.contract, Reading(self.job.decode))
            except ClipError:
                continue  # it is told when it is checked

"""Check the graph before it ships: run it on real clips and compare it with the eager network.

Three kinds of runs, each compared with eager fp32:

- eager in the target type (fp16 around INT8 and FP8): the drift of the precision by itself, never gated;
- the shipped file in ONNX Runtime, at batch 1, opt and max (gated). Not for bf16, which the CPU
  provider cannot run;
- for all but fp32, a graph that emulates the rounding of the shipped graph's types (gated), because ONNX
  Runtime's CPU provider does not round; see `vivit_export.export.graph.emulate`.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from functools import reduce
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vivit_export.bundle import MODEL
from vivit_export.bundle.checks import CheckedClips, Gate, Parity, Run
from vivit_export.contract import Contract
from vivit_export.errors import counted
from vivit_export.export.clips import CheckClips, read_check_clips
from vivit_export.export.graph.emulate import emulated_session
from vivit_export.precision import Precision
from vivit_export.progress import Progress
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.clips.pixels.processor_config import installed_resize_order
from vivit_export.runtime.drift.check import run_full_batches
from vivit_export.runtime.drift.clip_view import ClipTally
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.parity import compare_pixels
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

if TYPE_CHECKING:
    from vivit_export.export.checkpoint.load import Checkpoint

_MOST_COMPARED = 32
_SCORES_BYTES = 512 << 20
"""The check on the CPU skips, and reports, batches whose attention scores exceed this."""


def run_eager(
    checkpoint: Checkpoint, contract: Contract, clips: CheckClips, precision: Precision, progress: Progress
) -> Outputs:
    """Run the eager network on the clips of a check, and return the outputs that the contract has."""
    with progress.stage(f"run eager {precision} on {counted(len(clips.names), 'clips')}"):
        results = checkpoint.run_eager(clips.each, precision)
    wanted = {tensor.name for tensor in contract.io.outputs}
    return {name: array for name, array in results.items() if name in wanted}


def run_checks(
    folder: Path,
    model: ir.Model,
    *,
    precision: Precision,
    contract: Contract,
    clips: CheckClips,
    reference: Outputs,
    eager_low: Outputs | None,
    gate: Gate,
    batches: tuple[int, int, int],
    scores_bytes: int,
    tally: ClipTally | None = None,
) -> list[Run]:
    """Execute the runs that this machine supports.

    Args:
        folder: folder with the saved graph; a temporary graph is made in it and removed.
        model: the graph in memory.
        precision: its type.
        contract: its input mode and task.
        clips: what to run.
        reference: eager fp32 results.
        eager_low: eager results in the target type, or None for fp32.
        gate: sets the margin below which a flip counts as near.
        batches: (min, opt, max).
        scores_bytes: size of one clip's attention scores of one layer in float32.
        tally: is given the results, to tell clip by clip.
    """
    pixels = clips.each.preprocessor.to_pixels
    sizes = sorted({1, *batches[1:]})

    def run(session: OnnxRuntimeSession, name: str, size: int) -> Run:
        if size > 1 and size * scores_bytes > _SCORES_BYTES:
            needs = size * scores_bytes / (1 << 30)
            return Run(name, size, True, None, f"not run: one layer's attention scores need {needs:.1f} GiB on the CPU")

        def execute(frames: npt.NDArray[np.uint8]) -> Outputs:
            return session.run(pixels(frames) if contract.io.mode == "pixels" else frames)

        return run_full_batches(execute, name, clips.frames, reference, gate, contract.task, size, tally)

    runs = []
    if eager_low is not None:
        drift = compare(reference, eager_low, gate.tie_margin, contract.task)
        runs.append(Run(f"eager {precision.base}", 1, False, drift))
        if tally is not None:
            tally.add(runs[0], np.arange(len(clips.names)), eager_low)
    if precision.cpu_kernels:
        session = OnnxRuntimeSession(folder / MODEL)
        runs += [run(session, session.name, size) for size in sizes]
        del session
    if precision.rounds:
        with emulated_session(model, folder) as session:
            name = f"{session.name}, {precision.emulated}"
            emulated = [1] if precision.cpu_kernels else sizes
            runs += [run(session, name, size) for size in emulated]
    return runs


def processor_parity(contract: Contract, folder: Path | None, checked: CheckedClips) -> Parity:
    """Compare transformers' image processor with the runtime, on clips of a check as read from the videos.

    Of many clips, 32 are compared, with frames of as many sizes as possible: the processor takes longer than a GPU.

    Args:
        contract: says how clips are drawn and preprocessed.
        folder: as for `load_check_clips`.
        checked: the clips that were read from it.
    """
    _, clips = read_check_clips(contract, folder, len(checked.names), only=_of_every_size(checked))
    with closing(clips):
        return compare_processor(contract, clips)


def _of_every_size(checked: CheckedClips) -> list[int]:
    """Return which clips to compare: the first of each frame size first, then others."""
    of_size: dict[tuple[int, int] | None, list[int]] = defaultdict(list)
    for row, video in zip_longest(range(len(checked.names)), checked.videos):
        of_size[None if video is None else (video.width, video.height)].append(row)
    turns = zip_longest(*of_size.values())
    return [row for turn in turns for row in turn if row is not None][:_MOST_COMPARED]


def compare_processor(contract: Contract, clips: Iterable[npt.NDArray[np.uint8]]) -> Parity:
    """Compare transformers' image processor with the runtime.

    If the installed Pillow, which transformers calls, resizes in a different order than the contract
    records, the difference is reported but not gated.

    Args:
        contract: says how they are preprocessed.
        clips: one or more, each uint8 (T, h, w, 3).
    """
    from vivit_export.export.checkpoint.load import hugging_face_pixels, image_processor

    preprocessor = Preprocessor(contract.clip, contract.preprocess)
    other = contract.preprocess.resize_order != installed_resize_order()
    note = "the installed Pillow resizes in another order than the bundle records" if other else ""
    name = image_processor(contract.preprocess.processor).__name__

    def compared(frames: npt.NDArray[np.uint8]) -> Parity:
        expected = hugging_face_pixels(contract.preprocess, frames)
        return compare_pixels("the runtime", name, preprocessor(frames), expected, gated=not other, note=note)

    return reduce(operator.add, map(compared, clips))

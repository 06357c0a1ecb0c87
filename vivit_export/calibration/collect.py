"""Run the float32 graph on calibration clips and observe the tensors that will be quantized.

A few batches of clips are in memory at a time, and the observations (`cache.Observed`) take constant memory. Batches
may be observed anywhere (`Observing`): what is kept depends on nothing but the batch and its place, and is added up in
the order of the clips, so the sums are equal bit for bit.
An interrupted run resumes from its cache. The cache serves every method of `observers.METHODS` without
another run of the model.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivit_export.calibration.cache import Observations, Observed, load_observations, save_observations
from vivit_export.calibration.clips import CalibrationClips, UInt8, digest
from vivit_export.calibration.observers import Histogram, joined
from vivit_export.errors import CalibrationError, OutputError
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

Float32 = npt.NDArray[np.float32]

ROWS = 512
"""Vectors kept per tensor: 133 MB for all 48 tensors of ViViT-B/16x2."""
_TOKENS_PER_CALL = 4096  # as the sessions: one clip of ViViT-B, sixteen of the demo
_SECONDS_BETWEEN_SAVES = 60.0
_ROWS_ADDED = 64  # in float32, before their sum is added in float64


@dataclass(frozen=True)
class Batch:
    """Clips that are run together.

    Attributes:
        names: of the clips, for messages.
        crops: uint8 (B, T, H, W, 3).
        before: usable clips before it, in the order of all.
        set_aside: see `CalibrationClips`, when the last of its clips had been read.
    """

    names: Sequence[str]
    crops: UInt8
    before: int
    set_aside: dict[str, str]


class Observer:
    """The graph in one process.

    Args:
        model: see `collect`, as for ``tensors``.
        tensors: see there.
        rows_per_clip: see `observe`.
    """

    def __init__(self, model: Path, tensors: Sequence[str], rows_per_clip: int) -> None:
        self._session = OnnxRuntimeSession(model, tensors, prepared=True, gpu_if_there=True)
        self._tensors, self._rows_per_clip = tensors, rows_per_clip

    def __call__(self, batch: Batch) -> dict[str, Observed]:
        """Observe a batch; see `observe`."""
        return observe(self._session.run(batch.crops), self._tensors, batch.names, self._rows_per_clip, batch.before)


Observing = Callable[[Path, Sequence[str], int, Iterator[Batch]], Generator[dict[str, Observed], None, None]]
"""Yields the observations of each batch, in order; takes the arguments of `Observer`, then the batches."""


def observe_here(
    model: Path, tensors: Sequence[str], rows_per_clip: int, batches: Iterator[Batch]
) -> Generator[dict[str, Observed], None, None]:
    """Observe batch after batch in this process."""
    observer = Observer(model, tensors, rows_per_clip)
    for batch in batches:
        yield observer(batch)


def collect(
    model: Path,
    tensors: Sequence[str],
    clips: CalibrationClips,
    *,
    tokens: int,
    cache: Path,
    key: dict[str, str],
    count: Callable[[int], None],
    observing: Observing = observe_here,
) -> Observations:
    """Observe ``tensors`` on all clips.

    Runs on the first GPU if ONNX Runtime has CUDA, else on the CPU. Memory: ONNX Runtime's own, and one batch plus
    about 3 MB for each tensor.

    Args:
        model: float32 graph that takes uint8 crops.
        tensors: names of values in it; see `observe`.
        clips: what to run.
        tokens: how many of them a clip has; a batch has about 4096.
        cache: file to resume from and to store the result in.
        key: see `load_observations`.
        count: called with the number of clips just done.
        observing: where batches are observed.

    Raises:
        ClipError: see `CalibrationClips.read`.
        CalibrationError: an activation is NaN or infinite, or the cache belongs to another model or other data.
        OutputError: the cache cannot be written.
    """
    state = load_observations(cache, key)
    if state is None:
        state = Observations()
        save_observations(cache, key, state)  # a place that cannot be written is found out before the work
    count(len(state.done) + len(state.set_aside))
    clips.set_aside.update(state.set_aside)
    if len(state.done) + len(state.set_aside) < len(clips):
        ahead: deque[Batch] = deque()
        batches = _batches(clips, state.done, max(1, _TOKENS_PER_CALL // tokens))
        found = observing(model, tensors, -(-ROWS // len(clips)), _kept(batches, ahead))
        with closing(batches), closing(found):
            _run(found, ahead, clips, cache, key, state, count)
    clips.require_enough(len(state.done))
    return state


def _kept(batches: Iterator[Batch], ahead: deque[Batch]) -> Iterator[Batch]:
    for batch in batches:
        ahead.append(batch)
        yield batch


def _run(
    found: Iterator[dict[str, Observed]],
    ahead: deque[Batch],
    clips: CalibrationClips,
    cache: Path,
    key: dict[str, str],
    state: Observations,
    count: Callable[[int], None],
) -> None:
    saved_at, saved_clips = time.monotonic(), len(state.done)
    try:
        for seen in found:
            batch = ahead.popleft()
            add(state, seen)
            state.done += [digest(clip) for clip in batch.crops]
            count(len(batch.crops) + len(batch.set_aside) - len(state.set_aside))
            state.set_aside = batch.set_aside
            if time.monotonic() - saved_at > _SECONDS_BETWEEN_SAVES:
                save_observations(cache, key, state)
                saved_at, saved_clips = time.monotonic(), len(state.done)
    except OutputError as e:
        raise OutputError(f"{e}; {saved_clips} of {len(clips)} clips are kept") from e
    except BaseException:
        save_observations(cache, key, state)  # an interrupted run loses nothing
        raise
    state.set_aside = dict(clips.set_aside)
    save_observations(cache, key, state)


def observe(
    values: dict[str, Float32], tensors: Iterable[str], names: Sequence[str], rows_per_clip: int, before: int
) -> dict[str, Observed]:
    """Return the observations of one batch.

    Args:
        values: float32 by name: (B, tokens, channels), (B times sequences, tokens, channels) or (B, channels).
        tensors: the names to observe.
        names: names of the B clips, for messages.
        rows_per_clip: how many rows to keep of each clip.
        before: clips before this batch, which the choice of rows depends on.

    Raises:
        CalibrationError: a value is NaN or infinite; the message names the tensor and the clip.
    """
    clips = {name: values[name].reshape(len(names), -1, values[name].shape[-1]) for name in tensors}
    seen = {name: _observe_one(name, rows, names) for name, rows in clips.items()}
    for name, new in seen.items():
        new.rows = _some_rows(clips[name], rows_per_clip, before)
    return seen


def add(state: Observations, seen: dict[str, Observed]) -> None:
    """Add the observations of the next batch; rows are kept until there are `ROWS`."""
    for name, new in seen.items():
        old = state.tensors.get(name)
        state.tensors[name] = new if old is None else _joined(old, new)


def _observe_one(name: str, values: Float32, names: Sequence[str]) -> Observed:
    values = np.ascontiguousarray(values)
    flat = values.reshape(-1, values.shape[-1])
    channel_max = np.maximum(flat.max(axis=0), -flat.min(axis=0))
    largest = float(channel_max.max())
    if not np.isfinite(largest):  # np.max hands a NaN on
        bad = next(i for i, clip in enumerate(values) if not np.isfinite(clip).all())
        raise CalibrationError(
            f"{name} has NaN or infinite values on the clip {names[bad]}; a range cannot be found: check the weights "
            "of that layer, or leave the clip out"
        )
    histogram = Histogram()
    histogram.add(values, largest)
    return Observed(histogram, channel_max, _channel_sum(flat), len(flat), flat[:0])


def _channel_sum(flat: Float32) -> npt.NDArray[np.float64]:
    """Add up rows in an order that, unlike a matrix product's, does not depend on the number of threads."""
    whole = len(flat) // _ROWS_ADDED * _ROWS_ADDED
    sums = flat[:whole].reshape(-1, _ROWS_ADDED, flat.shape[1]).sum(axis=1)
    found: npt.NDArray[np.float64] = np.concatenate([sums, flat[whole:]]).sum(axis=0, dtype=np.float64)
    return found


def _joined(old: Observed, new: Observed) -> Observed:
    rows = old.rows if len(old.rows) >= ROWS else np.concatenate([old.rows, new.rows])[:ROWS]
    return Observed(
        joined([old.histogram, new.histogram]),
        np.maximum(old.channel_max, new.channel_max),
        old.channel_sum + new.channel_sum,
        old.num_rows + new.num_rows,
        rows,
    )


def _some_rows(values: Float32, count: int, clips_before: int) -> Float32:
    """Select the first token of each clip (the class token, which the logits depend on) and ``count`` - 1 at random."""
    kept = []
    for i, clip in enumerate(values):
        rng = np.random.default_rng(clips_before + i)
        others = 1 + rng.choice(len(clip) - 1, min(count, len(clip)) - 1, replace=False)
        kept.append(clip[np.concatenate([[0], np.sort(others)])])
    return np.concatenate(kept)


def _batches(clips: CalibrationClips, done: Sequence[str], size: int) -> Generator[Batch, None, None]:
    names: list[str] = []
    crops: list[UInt8] = []
    before = len(done)
    for name, clip in clips.read(list(done)):
        names.append(name)
        crops.append(clip)
        if len(names) == size:
            yield Batch(names, np.stack(crops), before, dict(clips.set_aside))
            before += size
            names, crops = [], []
    if names:
        yield Batch(names, np.stack(crops), before, dict(clips.set_aside))

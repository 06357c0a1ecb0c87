"""Run the float32 graph on calibration clips and observe the tensors that will be quantized.

One batch of clips is in memory at a time, and the observations (`cache.Observed`) take constant memory.
An interrupted run resumes from its cache. The cache serves every method of `observers.METHODS` without
another run of the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def collect(
    model: Path,
    tensors: Sequence[str],
    clips: CalibrationClips,
    *,
    tokens: int,
    cache: Path,
    key: dict[str, str],
    count: Callable[[int], None],
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
        _run(model, tensors, clips, max(1, _TOKENS_PER_CALL // tokens), cache, key, state, count)
    clips.require_enough(len(state.done))
    return state


def _run(
    model: Path,
    tensors: Sequence[str],
    clips: CalibrationClips,
    batch_size: int,
    cache: Path,
    key: dict[str, str],
    state: Observations,
    count: Callable[[int], None],
) -> None:
    session = OnnxRuntimeSession(model, tensors, prepared=True, gpu_if_there=True)
    saved_at, saved_clips = time.monotonic(), len(state.done)
    try:
        for names, batch in _batches(clips.read(state.done), batch_size):
            observe(state, session.run(batch), tensors, names, rows_per_clip=-(-ROWS // len(clips)))
            state.done += [digest(clip) for clip in batch]
            count(len(batch) + len(clips.set_aside) - len(state.set_aside))
            state.set_aside = dict(clips.set_aside)
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
    state: Observations, values: dict[str, Float32], tensors: Iterable[str], names: Sequence[str], rows_per_clip: int
) -> None:
    """Add one batch to the observations, for all tensors or none.

    Args:
        state: changed in place.
        values: float32 by name: (B, tokens, channels), (B times sequences, tokens, channels) or (B, channels).
        tensors: the names to observe.
        names: names of the B clips, for messages.
        rows_per_clip: how many rows to keep of each clip, until there are `ROWS`.

    Raises:
        CalibrationError: a value is NaN or infinite; the message names the tensor and the clip.
    """
    clips = {name: values[name].reshape(len(names), -1, values[name].shape[-1]) for name in tensors}
    seen = {name: _observe_one(name, rows, names) for name, rows in clips.items()}
    for name, new in seen.items():
        old = state.tensors.get(name)
        new.rows = _some_rows(clips[name], rows_per_clip, len(state.done))
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
    ones = np.ones(len(flat), np.float32)
    return Observed(histogram, channel_max, (ones @ flat).astype(np.float64), len(flat), flat[:0])


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


def _batches(clips: Iterator[tuple[str, UInt8]], size: int) -> Iterator[tuple[list[str], UInt8]]:
    names: list[str] = []
    crops: list[UInt8] = []
    for name, clip in clips:
        names.append(name)
        crops.append(clip)
        if len(names) == size:
            yield names, np.stack(crops)
            names, crops = [], []
    if names:
        yield names, np.stack(crops)

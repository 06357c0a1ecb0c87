"""Which frames of a video make a clip: pure functions of counts, by the contract's rule.

A video has N frames, [0, N); a clip takes T of them, i in [0, T). Drawn for N = 16, T = 4::

    video              0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15

    uniform            ^           ^           ^           ^             i * N // T
    center                               ^  ^  ^  ^                      (N - T) // 2 + i
    head               ^  ^  ^  ^                                        i
    stride, k = 2                  ^     ^     ^     ^     |             (N - T * k) // 2 + i * k

``uniform`` is the rule of transformers' video pipeline if the checkpoint has a video processor; ``head``
is its rule without one. ``stride`` takes the frames s, s + k, … of the window [s, s + T * k) in the middle
of the video. This is scenic's central test clip (the paper: T = 32, k = 2), bit for bit. ``center`` is
``stride`` with k = 1.

V temporal views with stride k are V such windows, equally spaced from the first frame to the last,
s(v) = v * (N - T * k) // (V - 1), as scenic's test clips are (N = 16, T = 4, k = 2, V = 3)::

    view 0             ^     ^     ^     ^     |
    view 1                         ^     ^     ^     ^     |
    view 2                                     ^     ^     ^     ^     |

If N < T * k, the window starts at 0. A video is too short if the last index would lie beyond it: N < T, or
with stride N < (T - 1) * k + 1. It is then refused, or its indices are drawn as if it continued: ``repeat``
shows the last frame again, index min(j, N - 1); ``loop`` starts over, index j % N, as scenic does.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from vivit_export.contract import Clip, Sampling, Short
from vivit_export.errors import ClipError, InputError, UsageError, counted, option

Indices = npt.NDArray[np.int64]

# Beyond any video and any protocol; a typing error would fill the memory with indices.
_MOST_STRIDE, _MOST_VIEWS = 1_000_000, 1000


def choose_sampling(
    clip: Clip,
    sampling: Sampling | None = None,
    stride: int | None = None,
    short: Short | None = None,
    views: tuple[int, int] | None = None,
) -> Clip:
    """Change how clips are drawn; None keeps the current value, and a stride alone implies sampling ``stride``.

    Raises:
        UsageError: the choices conflict, or a number is out of range.
    """
    if stride is not None and stride > _MOST_STRIDE:
        raise UsageError(f"{option('stride', stride)} must be at most {_MOST_STRIDE}")
    if views is not None and max(views) > _MOST_VIEWS:
        given = option("views", "x".join(map(str, views)))
        raise UsageError(f"{given} must be at most {_MOST_VIEWS} temporal views")
    if stride is not None and sampling is None:
        sampling = "stride"
    if sampling not in (None, "stride") and clip.stride > 1 and stride is None:
        stride = 1  # the clip's own belongs to the sampling that is replaced
    try:
        return dataclasses.replace(
            clip,
            sampling=sampling or clip.sampling,
            stride=clip.stride if stride is None else stride,
            short=short or clip.short,
            views=views or clip.views,
        )
    except InputError as e:
        raise UsageError(str(e)) from e


def frames_needed(clip: Clip) -> int:
    """Return how many frames a video must have so that no index lies beyond it."""
    return (clip.num_frames - 1) * clip.stride + 1


def clip_indices(num_frames_in_video: int, clip: Clip, *, source: str = "the video") -> Indices:
    """Choose the frames of one clip; `view_indices` does the same for several ``views``.

    Args:
        num_frames_in_video: N.
        clip: T, and the rule.
        source: what the error message calls the video.

    Returns:
        int64 (T,), each in [0, N); increasing unless the video is short.

    Raises:
        ClipError: the video has no frames, or too few and the rule refuses it.
    """
    total = _extended(num_frames_in_video, clip, source)
    steps = np.arange(clip.num_frames, dtype=np.int64)
    if clip.sampling == "uniform":
        indices = steps * total // clip.num_frames
    elif clip.sampling == "head":
        indices = steps
    else:
        indices = _room(total, clip) // 2 + steps * clip.stride
    return _inside(indices, num_frames_in_video, clip)


def view_indices(num_frames_in_video: int, clip: Clip, *, source: str = "the video") -> Indices:
    """Choose the frames of every temporal view.

    Args:
        num_frames_in_video: N.
        clip: T, the rule, and how many temporal views there are.
        source: what the error message calls the video.

    Returns:
        int64 (V, T), each in [0, N); with one view the row is `clip_indices`.

    Raises:
        ClipError: as for `clip_indices`.
    """
    num_views = clip.views[0]
    if num_views == 1:
        return clip_indices(num_frames_in_video, clip, source=source)[None]
    room = _room(_extended(num_frames_in_video, clip, source), clip)
    starts = np.arange(num_views, dtype=np.int64) * room // (num_views - 1)
    steps = np.arange(clip.num_frames, dtype=np.int64) * clip.stride
    return _inside(starts[:, None] + steps, num_frames_in_video, clip)


def _extended(num_frames: int, clip: Clip, source: str) -> int:
    """Return the length to draw from: the video's, or the shortest usable length if the video is continued."""
    needed = frames_needed(clip)
    if num_frames < 1:
        raise ClipError(f"{source} holds no video frames; it is empty or cut short")
    if num_frames < needed and clip.short == "refuse":
        span = f", one in {clip.stride}, out of {needed}" if clip.stride > 1 else ""
        raise ClipError(
            f"{source} has {counted(num_frames, 'frames')} but the model takes {clip.num_frames}{span}; give a longer "
            f"one, or choose {option('short', 'repeat')} or {option('short', 'loop')}"
        )
    return max(num_frames, needed)


def _room(num_frames: int, clip: Clip) -> int:
    """Return how far the window can move."""
    return max(0, num_frames - clip.num_frames * clip.stride)


def _inside(indices: Indices, num_frames: int, clip: Clip) -> Indices:
    return indices % num_frames if clip.short == "loop" else np.minimum(indices, num_frames - 1)

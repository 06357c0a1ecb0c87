"""The paper's multi-view protocol: several clips of one video, whose logits are averaged.

``Clip.views`` = (temporal, spatial); 4 x 3 is the paper's. The temporal windows are those of
`vivit_export.runtime.clips.sampling`. The spatial crops lie along the longer side of the resized frame::

    landscape                             portrait     top
    +--------+-----+--------+             +-------+
    |        |     |        |             |#######|    center: between
    | start  |center  end   |             |       |
    |        |     |        |             +-------+    bottom
    +--------+-----+--------+

Across the longer side each crop is centered; the center crop is ``VivitImageProcessor``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.arguments import instance
from vivit_export.contract import Contract
from vivit_export.errors import ClipError, UsageError
from vivit_export.files import as_path
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor
from vivit_export.runtime.clips.sampling import Indices, clip_indices, view_indices
from vivit_export.runtime.clips.video.frames import place_sampled
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Rows = npt.NDArray[Any]  # of a batch: uint8 or float32

_POSITIONS = {1: (0.5,), 3: (0.0, 0.5, 1.0)}


def read_views(path: str | Path, contract: Contract, reading: Reading = AS_NEEDED) -> UInt8:
    """Read all views of a video.

    Memory: the result, and the decoders' own frames, which take 512 MB at most or are those of one decoder.

    Args:
        path: a video file.
        contract: says which frames and crops, and what the model takes.
        reading: how much is decoded.

    Returns:
        uint8 (V, T, H, W, 3), V = temporal * spatial with the spatial ones side by side: a batch
        for the ``crops`` input. For a model with input mode ``frames``, which crops by itself,
        (V, T, h, w, 3) at the video's own size.

    Raises:
        ClipError: as for `read_clip`, or a size that does not reach the model.
        UsageError: spatial views of a model that does not crop here; or it is not a path.
    """
    path, clip = as_path(path, "path"), instance("contract", contract, Contract).clip
    rows = np.empty(0, np.uint8)

    def rows_for(frame: UInt8) -> UInt8:
        nonlocal rows
        if not rows.size:
            size = frame.shape[:2] if contract.io.mode == "frames" else (clip.height, clip.width)
            rows = np.empty((num_views(contract), clip.num_frames, *size, 3), np.uint8)
        return rows

    _read(path, contract, reading, rows_for)
    return rows


def read_views_to(rows: Rows, path: Path, contract: Contract, reading: Reading = AS_NEEDED) -> None:
    """Read all views of a video straight to their rows of a batch, over whatever these hold.

    Args:
        rows: (V, *the shape of a clip as the graph takes it), in the graph's dtype.
        path: a video file.
        contract: as for `read_views`.
        reading: how much is decoded.

    Raises:
        ClipError: as for `read_views`, or frames of a size that the graph does not accept.
        UsageError: as for `read_views`.
    """

    def rows_for(frame: UInt8) -> Rows:
        if contract.io.mode == "frames":  # as a clip of one frame
            require_size(frame[None, None], path, contract)
        return rows

    _read(path, contract, reading, rows_for)


def read_crops(path: Path, contract: Contract, reading: Reading = AS_NEEDED) -> UInt8:
    """Read the clip that `read_clip` draws, and crop each frame as it comes.

    Returns:
        uint8 (T, H, W, 3), as ``Preprocessor.crops(read_clip(path, contract))``; whatever the model's input mode.

    Raises:
        ClipError: as for `read_clip`, or a size that does not reach the model.
    """
    clip = contract.clip
    preprocessor = Preprocessor(clip, contract.preprocess)
    crops = np.empty((clip.num_frames, clip.height, clip.width, 3), np.uint8)

    def put(frame: UInt8, places: Sequence[int]) -> None:
        preprocessor.write(frame, crops[places[0]])
        for other in places[1:]:
            crops[other] = crops[places[0]]

    place_sampled(path, lambda count: clip_indices(count, clip, source=str(path)), put, reading)
    return crops


def num_views(contract: Contract) -> int:
    """Return V, the number of views of each video."""
    temporal, spatial = contract.clip.views
    return temporal * spatial


def _read(path: Path, contract: Contract, reading: Reading, rows_for: Callable[[UInt8], Rows]) -> None:
    """Read all views, each frame to the array that ``rows_for`` returns for it."""
    cropper, length = ViewCropper(contract), contract.clip.num_frames

    def put(frame: UInt8, places: Sequence[int]) -> None:
        rows = rows_for(frame)
        by_view = rows.reshape(-1, cropper.spatial, *rows.shape[1:])
        (view, step), *others = (divmod(place, length) for place in places)
        cropper.write(frame, by_view[view, :, step])
        for other_view, other_step in others:
            by_view[other_view, :, other_step] = by_view[view, :, step]

    def choose(num_frames: int) -> Indices:
        return view_indices(num_frames, contract.clip, source=str(path)).reshape(-1)

    place_sampled(path, choose, put, reading)


def require_size(clips: UInt8, path: object, contract: Contract) -> None:
    """Refuse clips whose size differs from the frame size of a graph that resizes by itself.

    Args:
        clips: uint8 (V, T, h, w, 3).
        path: where they come from.
        contract: of the model.

    Raises:
        ClipError: they have another size.
    """
    size = contract.io.frame_size
    if size is not None and clips.shape[2:4] != size:
        raise ClipError(
            f"{path} is {clips.shape[3]}x{clips.shape[2]} but this bundle takes frames of {size[1]}x{size[0]} "
            "(width x height); for videos of any size export with --input crops"
        )


def average_views(logits: Float32) -> Float32:
    """Average the logits of the views of one video.

    Args:
        logits: (V, num_labels), one row per view.

    Returns:
        float32 (num_labels,): the mean, summed in double precision.
    """
    if logits.ndim != 2 or not len(logits):
        raise ValueError(f"the logits of the views must be an array (V, num_labels), got {logits.shape = }")
    mean: Float32 = logits.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


class ViewCropper:
    """Turn a frame into the model's input, once per spatial view.

    Attributes:
        spatial: how many spatial views there are.

    Raises:
        UsageError: spatial views of a model that does not crop here.
    """

    def __init__(self, contract: Contract, spatial: int | None = None) -> None:
        self.spatial = contract.clip.views[1] if spatial is None else spatial
        self._positions = _POSITIONS[self.spatial]
        self._preprocessor = None
        if contract.io.mode != "frames":
            self._preprocessor = Preprocessor(contract.clip, contract.preprocess)
        if self.spatial > 1 and (self._preprocessor is None or not contract.preprocess.do_center_crop):
            raise UsageError(
                f"{self.spatial} spatial views need a crop to move, but this model "
                + ("takes whole frames; export with --input crops" if self._preprocessor is None else "does not crop")
            )

    def __call__(self, frame: UInt8) -> UInt8:
        """Return uint8 (spatial, H, W, 3), or (1, h, w, 3) for a model that takes whole frames."""
        if self._preprocessor is None:
            return frame[None]
        return np.stack([self._preprocessor.crop(frame, position) for position in self._positions])

    def write(self, frame: UInt8, out: Rows) -> None:
        """Write what the model takes.

        Args:
            frame: uint8 (h, w, 3).
            out: as a call returns it; or float32 (spatial, 3, H, W), for normalized pixels.
        """
        for place, position in zip(out, self._positions, strict=True):
            if self._preprocessor is None:
                place[...] = frame
            else:
                self._preprocessor.write(frame, place, position)

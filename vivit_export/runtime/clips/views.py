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

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivit_export.contract import Contract
from vivit_export.errors import ClipError, UsageError
from vivit_export.files import as_path
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor
from vivit_export.runtime.clips.sampling import view_indices
from vivit_export.runtime.clips.video.frames import read_sampled
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_POSITIONS = {1: (0.5,), 3: (0.0, 0.5, 1.0)}


def read_views(path: str | Path, contract: Contract, reading: Reading = AS_NEEDED) -> UInt8:
    """Read all views of a video.

    Memory: the result, and the decoder's own few frames.

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
    path, (temporal, spatial) = as_path(path, "path"), contract.clip.views
    shrink = ViewCropper(contract)
    frames = read_sampled(
        path,
        lambda num_frames: view_indices(num_frames, contract.clip, source=str(path)).reshape(-1),
        shrink,
        reading,
    )
    by_frame = frames.reshape(temporal, contract.clip.num_frames, spatial, *frames.shape[2:])
    return np.ascontiguousarray(by_frame.swapaxes(1, 2)).reshape(temporal * spatial, -1, *frames.shape[2:])


def read_fitting_views(path: Path, contract: Contract, reading: Reading = AS_NEEDED) -> UInt8:
    """Do `read_views`, and refuse frames of a size that the graph does not accept.

    Raises:
        ClipError: as for `read_views` and `require_size`.
        UsageError: as for `read_views`.
    """
    clips = read_views(path, contract, reading)
    require_size(clips, path, contract)
    return clips


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

    Raises:
        UsageError: spatial views of a model that does not crop here.
    """

    def __init__(self, contract: Contract, spatial: int | None = None) -> None:
        self._positions = _POSITIONS[contract.clip.views[1] if spatial is None else spatial]
        self._preprocessor = None
        if contract.io.mode != "frames":
            self._preprocessor = Preprocessor(contract.clip, contract.preprocess)
        if len(self._positions) > 1 and (self._preprocessor is None or not contract.preprocess.do_center_crop):
            raise UsageError(
                f"{len(self._positions)} spatial views need a crop to move, but this model "
                + ("takes whole frames; export with --input crops" if self._preprocessor is None else "does not crop")
            )

    def __call__(self, frame: UInt8) -> UInt8:
        """Return uint8 (spatial, H, W, 3), or (1, h, w, 3) for a model that takes whole frames."""
        if self._preprocessor is None:
            return frame[None]
        return np.stack([self._preprocessor.crop(frame, position) for position in self._positions])

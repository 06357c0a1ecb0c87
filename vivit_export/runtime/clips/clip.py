"""Read one clip from a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivit_export.arguments import instance
from vivit_export.contract import Contract
from vivit_export.files import as_path
from vivit_export.runtime.clips.sampling import clip_indices
from vivit_export.runtime.clips.video.frames import read_sampled
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading


def read_clip(path: str | Path, contract: Contract, reading: Reading = AS_NEEDED) -> npt.NDArray[np.uint8]:
    """Draw one clip from a video by the contract's sampling rule.

    Memory: the T chosen frames, and the decoders' own, which take 512 MB at most or are those of one decoder.
    ``views`` are read by `vivit_export.runtime.read_views`; this function ignores them and returns a single clip.

    Args:
        path: a video file.
        contract: says how many frames, and how they are drawn.
        reading: how much is decoded.

    Returns:
        uint8 (T, h, w, 3): RGB at the video's own size, turned as its rotation metadata says.

    Raises:
        ClipError: no such file, not a video, cut short, damaged, too short, of changing size, of a color matrix
            without a conversion, or turned by something else than quarter turns.
        UsageError: it is not a path, or the contract is none.
    """
    path, contract = as_path(path, "path"), instance("contract", contract, Contract)
    return read_sampled(path, lambda num_frames: clip_indices(num_frames, contract.clip, source=str(path)), reading)

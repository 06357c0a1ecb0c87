"""All views of the clips of a check, for results that are averaged over them as `predict` does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.checks import CheckedClips
from vivit_export.contract import Contract
from vivit_export.export.clips import CheckClips, EachClip, as_one, clip_names
from vivit_export.runtime import Preprocessor, find_clips, read_views
from vivit_export.runtime.clips.ahead import num_readers, share_cores
from vivit_export.runtime.clips.video.facts import video_facts
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.stopping import read_in_order
from vivit_export.runtime.clips.views import require_size


def load_view_clips(
    contract: Contract,
    folder: Path,
    limit: int | None,
    note: Callable[[str], None] | None = None,
    reading: Reading = AS_NEEDED,
    readers: int | None = None,
) -> CheckClips:
    """Decode and crop all views of each video.

    Args:
        contract: says how to sample and crop, and how many views V there are.
        folder: the user's videos.
        limit: see `load_check_clips`, as for the others.
        note: see there.
        reading: see there.
        readers: see there.

    Returns:
        Clips whose arrays have V rows for each name, one view after the other.

    Raises:
        ClipError: no video is found, or one cannot be used.
        UsageError: spatial views of a model that does not crop here.
    """
    preprocessor = Preprocessor(contract.clip, contract.preprocess)
    paths = find_clips(folder, note)[:limit]
    at_once = num_readers(readers, len(paths))
    read = partial(_read, contract=contract, reading=share_cores(reading, at_once))
    temporal, spatial = contract.clip.views
    with closing(read_in_order(read, paths, at_once)) as clips:
        whole = as_one(chain.from_iterable(clips), len(paths) * temporal * spatial)
    crops = whole if contract.io.frame_size is None else as_one(map(preprocessor.crops, whole), len(whole))
    names, videos = tuple(clip_names(folder)[:limit]), tuple(map(video_facts, paths))
    checked = CheckedClips(folder.absolute().name, names, videos, contract.clip.views)
    return CheckClips(checked, whole, EachClip(preprocessor, crops))


def _read(path: Path, contract: Contract, reading: Reading) -> npt.NDArray[np.uint8]:
    views = read_views(path, contract, reading)
    require_size(views, path, contract)
    return views

"""The clips that an export is checked on: the user's own, or the demo's."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vivit_export import demo
from vivit_export.bundle.checks import CheckedClips
from vivit_export.contract import Contract
from vivit_export.errors import ClipError, OutputError, option
from vivit_export.runtime import Preprocessor, find_clips, read_clip
from vivit_export.runtime.clips.ahead import num_readers, share_cores
from vivit_export.runtime.clips.video.facts import video_facts
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.stopping import read_in_order


@dataclass(frozen=True)
class EachClip:
    """The pixels of clip after clip, float32 (T, 3, H, W), made when they are needed: all of them take much memory.

    Attributes:
        preprocessor: makes them.
        crops: uint8 (N, T, H, W, 3).
    """

    preprocessor: Preprocessor
    crops: npt.NDArray[np.uint8]

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        for place in range(len(self.crops)):
            yield self.preprocessor.to_pixels(self.crops[place : place + 1])[0]


@dataclass(frozen=True)
class CheckClips:
    """Clips ready for the graph.

    Attributes:
        checked: where they come from, for the report; their names are paths, relative to the folder.
        frames: uint8 (N, T, h, w, 3): input for a uint8 graph, crops or whole frames.
        each: the pixels of each clip, for the eager network.
    """

    checked: CheckedClips
    frames: npt.NDArray[np.uint8]
    each: EachClip

    @property
    def source(self) -> str:
        """Where they come from."""
        return self.checked.source

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the files, relative to the folder."""
        return self.checked.names

    @property
    def crops(self) -> npt.NDArray[np.uint8]:
        """The frames after the runtime's resize and crop, uint8 (N, T, H, W, 3)."""
        return self.each.crops

    def for_input(self, mode: str) -> Iterable[npt.NDArray[Any]]:
        """Return the clips for the graph's input, one by one."""
        return self.each if mode == "pixels" else self.frames


_MOST_IN_MEMORY = 1 << 30  # bytes of frames
_BUNDLED_FLOPS = 2e12
"""Eager work that a check on the bundled clips may cost: 8 clips of a small model, or 2 of ViViT-B/16x2,
each of which takes about a minute on two cores (three runs, one of them in eager fp16)."""


def num_bundled_clips(flops_per_clip: float) -> int:
    """Return how many of the bundled clips to check on if the user names neither clips nor a number."""
    return max(1, int(_BUNDLED_FLOPS / flops_per_clip))


def num_check_clips(wanted: int | None, folder: str | Path | None, flops_per_clip: float) -> int | None:
    """Return how many clips to check on at most, or None for all: the number wanted, or what suits the clips.

    Args:
        wanted: the user's number, if any.
        folder: the user's videos, of which all are used, or None for the bundled ones; see `num_bundled_clips`.
        flops_per_clip: eager work for one clip.
    """
    return wanted or (None if folder else num_bundled_clips(flops_per_clip))


def load_check_clips(
    contract: Contract,
    folder: Path | None,
    limit: int | None,
    note: Callable[[str], None] | None = None,
    reading: Reading = AS_NEEDED,
    readers: int | None = None,
) -> CheckClips:
    """Decode, sample and crop clips according to the contract.

    Args:
        contract: says how to sample and crop.
        folder: the user's videos, or None for the bundled ones.
        limit: read at most this many, in sorted order.
        note: receives a remark if anything in the user's folder is ignored; see `find_clips`.
        reading: how much of each video is decoded.
        readers: how many are read at once; None: one per core.

    Raises:
        ClipError: no video is found, or one cannot be used.
    """
    preprocessor = Preprocessor(contract.clip, contract.preprocess)
    names, clips = read_check_clips(contract, folder, limit, note, reading, readers)
    with closing(clips):
        if contract.io.frame_size is None:
            whole = crops = as_one(map(preprocessor.crops, clips), len(names))
        else:
            whole = as_one(clips, len(names))
            crops = as_one(map(preprocessor.crops, whole), len(names))
    bundled = "bundled demo clips, sampled to the shape of this checkpoint"
    # A folder's place on this machine is not part of what the bundle is; its name helps people.
    source = bundled if folder is None else folder.absolute().name
    videos = () if folder is None else tuple(map(video_facts, find_clips(folder)[:limit]))
    return CheckClips(CheckedClips(source, tuple(names), videos), whole, EachClip(preprocessor, crops))


def as_one(clips: Iterable[npt.NDArray[np.uint8]], count: int) -> npt.NDArray[np.uint8]:
    """Return clips of one shape as one array: in memory, or on disk if it has more than 1 GiB.

    Raises:
        OutputError: the disk has no room.
    """
    clips = iter(clips)
    first = next(clips)
    out = _empty((count, *first.shape))
    for place, clip in enumerate(chain([first], clips)):
        out[place] = clip
    return out


def _empty(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    size = math.prod(shape)
    if size <= _MOST_IN_MEMORY:
        return np.empty(shape, np.uint8)
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # without a name: it goes with the array, or with the process
            os.posix_fallocate(file.fileno(), 0, size)  # a disk that is full later would end the process
            return np.asarray(np.memmap(file, np.uint8, "w+", shape=shape))
    except OSError as e:
        raise OutputError(
            f"{folder} has no room for the frames of {shape[0]} clips, {size / (1 << 30):.1f} GiB ({e.strerror}); "
            f"name another place in TMPDIR, use fewer clips, or check with {option('ray')}"
        ) from e


def read_check_clips(
    contract: Contract,
    folder: Path | None,
    limit: int | None,
    note: Callable[[str], None] | None = None,
    reading: Reading = AS_NEEDED,
    readers: int | None = None,
    only: Collection[int] | None = None,
) -> tuple[list[str], Generator[npt.NDArray[np.uint8], None, None]]:
    """Return the names of the clips, and a generator of their sampled frames; see `load_check_clips`.

    Frames are uint8 (T, h, w, 3), of the video's own size or, if the graph takes whole frames, the size of its input.

    Args:
        contract: see there, as for the others.
        folder: see there.
        limit: see there.
        note: see there.
        reading: see there.
        readers: see there.
        only: which of these clips to read; None: all.
    """
    root = demo.clips_path() if folder is None else folder
    paths = find_clips(root, None if folder is None else note)[:limit]
    if only is not None:
        paths = [path for row, path in enumerate(paths) if row in only]
    at_once = num_readers(readers, len(paths))
    read = partial(_read, contract=contract, bundled=folder is None, reading=share_cores(reading, at_once))
    return [_name(path, root) for path in paths], read_in_order(read, paths, at_once)


def clip_names(folder: Path | None) -> list[str]:
    """Return the names of all clips that `read_check_clips` would read without a limit.

    Raises:
        ClipError: see `find_clips`.
    """
    root = demo.clips_path() if folder is None else folder
    return [_name(path, root) for path in find_clips(root)]


def _name(path: Path, root: Path) -> str:
    # Class folders often hold files of equal names.
    return path.relative_to(root).as_posix() if root.is_dir() else path.name


def _as_camera(clip: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return the clip as a camera with another frame size would have filmed it; unchanged if the size fits."""
    height, width = size
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height))) for frame in clip])


def _read(path: Path, contract: Contract, bundled: bool, reading: Reading) -> npt.NDArray[np.uint8]:
    try:
        return _fitted(read_clip(path, contract, reading), contract)
    except ClipError:
        if not bundled:
            raise
        # The bundled clips hold about 40 frames. A longer clip is rendered, with the same motion.
        from vivit_export.demo.motion import render_clip

        label = demo.clip_labels()[path.name]
        clip = contract.clip
        rendered = render_clip(label, seed=0, num_frames=clip.num_frames, height=clip.height, width=clip.width)
        return _fitted(rendered, contract)


def _fitted(clip: npt.NDArray[np.uint8], contract: Contract) -> npt.NDArray[np.uint8]:
    return clip if contract.io.frame_size is None else _as_camera(clip, contract.io.frame_size)

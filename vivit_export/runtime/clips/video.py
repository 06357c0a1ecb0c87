"""Read frames from a video file.

Videos are decoded in full and in presentation order, without seeking: seeking is wrong on many streams. Which packets
show a frame is found out first (`vivit_export.runtime.clips.index`), and compared with what is decoded in the end.
A frame that the decoder marks as damaged makes the video unusable, whether it is wanted or not. Decoders notice most
damage of H.264 and MPEG; that of HEVC and VP9, whose data have little redundancy, often passes.
`vivit_export.runtime.clips.sampling` says which frames are taken, and `vivit_export.runtime.clips.picture` which color
and orientation they get. Nothing is resized here (see `vivit_export.runtime.clips.preprocess`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.runtime.clips.container import as_clip_error, decoded_frames, require_file
from vivit_export.runtime.clips.index import VideoIndex, read_index
from vivit_export.runtime.clips.picture import ToUprightRgb
from vivit_export.runtime.clips.sampling import Indices, clip_indices

UInt8 = npt.NDArray[np.uint8]

_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
_MOST_RUNS = 8  # of damaged frames that an error spells out


def read_clip(path: str | Path, contract: Contract) -> UInt8:
    """Draw one clip from a video by the contract's sampling rule.

    Memory: the T chosen frames and the decoder's own few. ``views`` are read by
    `vivit_export.runtime.read_views`; this function ignores them and returns a single clip.

    Args:
        path: a video file.
        contract: says how many frames, and how they are drawn.

    Returns:
        uint8 (T, h, w, 3): RGB at the video's own size, turned as its rotation metadata says.

    Raises:
        ClipError: no such file, not a video, cut short, damaged, too short, of changing size, of a color matrix
            without a conversion, or turned by something else than quarter turns.
    """
    path = Path(path)
    return read_sampled(path, lambda num_frames: clip_indices(num_frames, contract.clip, source=str(path)))


def read_sampled(
    path: Path, choose: Callable[[int], Indices], store: Callable[[UInt8], UInt8] = lambda frame: frame
) -> UInt8:
    """Decode a video and store the chosen frames.

    Args:
        path: a video file.
        choose: maps the number of frames N to n frame numbers in [0, N), in any order; it may
            raise. It is called again if decoding shows a different N.
        store: maps an upright RGB frame, uint8 (h, w, 3), to the array to keep, always of the same shape.

    Returns:
        uint8 (n, *shape of what is stored), in the order of ``choose``.

    Raises:
        ClipError: as for `read_clip`.
    """
    index = read_index(path)
    num_frames = index.num_frames
    kept, decoded = _collect(index, choose(num_frames), store)
    if decoded != num_frames and not index.has_index:
        # Some packets of these containers show no frame (VP8's hidden references, the second field of a
        # picture): count by the decoder instead.
        num_frames = decoded
        kept, decoded = _collect(index, choose(num_frames), store)
    require_all_decoded(path, decoded, num_frames)
    return kept


def find_clips(folder_or_file: str | Path) -> list[Path]:
    """List videos.

    Args:
        folder_or_file: a folder, searched through all levels for files with a video suffix (hidden
            ones are skipped), or one file of any name.

    Returns:
        Paths in sorted order; at least one.

    Raises:
        ClipError: it does not exist, is neither file nor folder, or the folder holds no video.
    """
    root = Path(folder_or_file)
    if os.path.isfile(root):  # unlike Path's, it asks about any name without an error
        return [root]
    if not os.path.isdir(root):
        require_file(root, "a video file or a folder of videos")
    files = (p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    clips = sorted(p for p in files if not any(part.startswith(".") for part in p.relative_to(root).parts))
    if not clips:
        raise ClipError(f"{root} holds no video; files with one of these suffixes are taken: {' '.join(_SUFFIXES)}")
    return clips


def _collect(index: VideoIndex, indices: Indices, store: Callable[[UInt8], UInt8]) -> tuple[UInt8, int]:
    """Return the stored frames at ``indices``, and the number of frames decoded.

    The array is complete only if all those frames were decoded.
    """
    slots: dict[int, list[int]] = {}
    for slot, wanted in enumerate(indices.tolist()):
        slots.setdefault(wanted, []).append(slot)
    kept, decoded = np.empty(0, np.uint8), 0
    for number, frame in decode_frames(index, slots.__contains__):
        decoded = number + 1
        if frame is None:
            continue
        stored = store(frame)
        if not kept.size:
            kept = np.empty((len(indices), *stored.shape), np.uint8)
        for slot in slots[number]:
            kept[slot] = stored
    return kept, decoded


def decode_frames(index: VideoIndex, is_wanted: Callable[[int], bool]) -> Iterator[tuple[int, UInt8 | None]]:
    """Decode a whole video in order of presentation.

    Args:
        index: of the video.
        is_wanted: asked once for each frame number, just before that frame is yielded.

    Yields:
        The frame's number and, if wanted, the frame: uint8 (h, w, 3), upright RGB.

    Raises:
        ClipError: as for `read_clip`, except that the number of frames is not checked. A damaged frame ends
            the iteration in its place.
    """
    path, shape, to_rgb = index.path, tuple[int, ...](), ToUprightRgb(index.path)
    with as_clip_error(path):
        frames = enumerate(decoded_frames(path, index.skip))
        for number, frame in frames:
            if frame.is_corrupt:
                raise _damage(path, [number, *(later for later, other in frames if other.is_corrupt)])
            if not is_wanted(number):
                yield number, None
                continue
            image = to_rgb(frame)
            shape = shape or image.shape
            if image.shape != shape:
                raise ClipError(
                    f"{path} changes its frame size from {shape[1]}x{shape[0]} to "
                    f"{image.shape[1]}x{image.shape[0]} (width x height); convert it to one size"
                )
            yield number, image


def _damage(path: Path, numbers: Sequence[int]) -> ClipError:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    named = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:_MOST_RUNS])
    named += ", …" if len(runs) > _MOST_RUNS else ""
    frames = "1 frame" if len(numbers) == 1 else f"{len(numbers)} frames"
    return ClipError(f"{path} is damaged: the decoder reports errors in {frames} ({named}); copy or encode it again")


def require_all_decoded(path: Path, decoded: int, num_frames: int) -> None:
    """Refuse a video with fewer or more frames than its packets promised.

    Raises:
        ClipError: the numbers differ.
    """
    if decoded != num_frames:
        raise ClipError(
            f"{path} is damaged: {decoded} of its {num_frames} frames can be decoded; copy or encode it again"
        )

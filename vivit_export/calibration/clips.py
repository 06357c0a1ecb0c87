"""The clips for a calibration: found, shuffled, and read one at a time according to the contract.

Unusable clips are set aside with a reason, up to a tenth of all clips. Beyond that, or if too few are
left, the calibration is refused. Random data is never used instead, and noise is recognized.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from vivit_export.calibration.sources import FRAMES, Source, find_sources
from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.files import sha256_of
from vivit_export.runtime.clips.ahead import num_readers, share_cores
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.stopping import read_in_order
from vivit_export.runtime.clips.views import read_crops

UInt8 = npt.NDArray[np.uint8]

FEWEST_CLIPS = 32
"""Fewer clips say too little about the largest activations."""
GOOD_CLIPS = 256
"""More clips than this hardly change a range; fewer are accepted with a warning."""
_TOLERATED_SHARE = 0.1
_UNCORRELATED = 0.1
_FRAMES_JUDGED = 4
_SHOWN = 3


@dataclass(frozen=True)
class CalibrationClips:
    """Clips in the order they are run.

    Attributes:
        contract: says how a clip is drawn from a video, and its shape.
        sources: all clips, shuffled.
        fewest: a calibration with fewer usable clips is refused.
        reading: how much of each video is decoded.
        readers: how many videos are read at once; None: one per core.
        set_aside: why clips were not used, by name; filled while they are read.
    """

    contract: Contract
    sources: tuple[Source, ...]
    fewest: int = FEWEST_CLIPS
    reading: Reading = AS_NEEDED
    readers: int | None = None
    set_aside: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    @cached_property
    def sha256(self) -> str:
        """Return a hash of the files' content, order and names, which does not depend on where the data is."""
        files = {path: _sha256(path) for path in {source.path for source in self.sources}}
        lines = (f"{files[source.path]} {source.row} {source.name}\n" for source in self.sources)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def read(self, done: Sequence[str] = ()) -> Iterator[tuple[str, UInt8]]:
        """Yield the name and the crops, uint8 (T, H, W, 3), of each usable clip.

        Memory: 2 * ``readers`` clips besides the one that was yielded, and the few frames of as many decoders.

        Args:
            done: digests (from `digest`) of the clips that an earlier run used, in order. They are not yielded
                again, but later copies of them are recognized.

        Raises:
            ClipError: more than a tenth of the clips are unusable, or too few are left.
        """
        start = len(done) + len(self.set_aside)
        names = [source.name for source in self.sources[:start] if source.name not in self.set_aside]
        seen = dict(zip(done, names, strict=True))
        used = len(seen)
        sources = self.sources[start:]
        readers = num_readers(self.readers, len(sources))
        load = partial(self._load, reading=share_cores(self.reading, readers))
        with closing(read_in_order(load, sources, readers)) as loaded:
            for source, (reason, crops) in zip(sources, loaded, strict=True):
                if crops is not None:
                    reason = _unusable(crops, seen)
                if reason or crops is None:
                    self.set_aside[source.name] = reason
                    self._require_most()
                    continue
                seen[digest(crops)] = source.name
                used += 1
                yield source.name, crops
        self.require_enough(used)

    def _load(self, source: Source, reading: Reading) -> tuple[str, UInt8 | None]:
        if source.row is not None:
            with safe_open(source.path, "numpy") as file:
                return "", np.ascontiguousarray(file.get_slice(FRAMES)[source.row])
        try:
            return "", read_crops(source.path, self.contract, reading)
        except ClipError as e:
            return _without_path(str(e), source), None

    def _require_most(self) -> None:
        if len(self.set_aside) > max(1, _TOLERATED_SHARE * len(self.sources)):
            raise ClipError(
                f"{len(self.set_aside)} of {len(self.sources)} calibration clips cannot be used, more than one in ten: "
                f"{self._reasons()}; remove or repair them"
            )

    def require_enough(self, used: int) -> None:
        """Raise ClipError if fewer clips than `fewest` could be used."""
        if used < self.fewest:
            aside = f" ({len(self.set_aside)} set aside: {self._reasons()})" if self.set_aside else ""
            raise ClipError(
                f"{used} usable calibration clips{aside} are too few: at least {self.fewest} are needed, {GOOD_CLIPS} "
                "or more are better; give more videos of the kind that the model will see"
            )

    def _reasons(self) -> str:
        reasons = [f"{name}: {reason}" for name, reason in self.set_aside.items()]
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        return "; ".join(reasons[:_SHOWN]) + more


def _unusable(crops: UInt8, seen: Mapping[str, str]) -> str:
    """Return why a clip says nothing about activations, or nothing new; empty: it can be used."""
    if crops.min() == crops.max():
        return "it shows one color throughout"
    if _is_noise(crops):
        return "it is random noise: neighboring pixels have nothing in common"
    first = seen.get(digest(crops))
    return f"it is the same clip as {first}" if first else ""


def _is_noise(crops: UInt8) -> bool:
    """Whether neighbors are uncorrelated in rows and in columns; videos had 0.65 and more, at 16 pixels a side."""
    if min(crops.shape[1:3]) < 2:
        return False
    centered = crops[:: max(1, len(crops) // _FRAMES_JUDGED)].astype(np.float32)
    centered -= centered.mean()
    power = float(np.square(centered).mean())
    rows = float((centered[:, :, 1:] * centered[:, :, :-1]).mean())
    columns = float((centered[:, 1:] * centered[:, :-1]).mean())
    return max(abs(rows), abs(columns)) < _UNCORRELATED * power


def _without_path(reason: str, source: Source) -> str:
    """Return a reader's sentence about a video without the place of the data on this machine."""
    for path in sorted({str(source.path), str(source.path.absolute())}, key=len, reverse=True):
        if reason.startswith(f"{path} "):
            reason = f"it{reason.removeprefix(path)}"
        reason = reason.replace(path, source.name)
    return reason


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return "unreadable"  # reading it will say why


def digest(crops: UInt8) -> str:
    """Return a digest that distinguishes a clip from all others."""
    return hashlib.sha256(crops.data).hexdigest()


def find_calibration_clips(
    data: Path | Sequence[Path],
    contract: Contract,
    *,
    limit: int | None = None,
    seed: int = 0,
    fewest: int = FEWEST_CLIPS,
    reading: Reading = AS_NEEDED,
    readers: int | None = None,
    note: Callable[[str], None] | None = None,
) -> CalibrationClips:
    """Find clips and shuffle them, without decoding any.

    Args:
        data: folders of videos, videos, ``.txt``, ``.csv`` or ``.tsv`` files with one path per line (relative to
            the file; a label may follow, and `` #`` starts a comment), or ``.safetensors`` files with crops
            ``frames`` uint8 (N, T, H, W, 3), such as a bundle's ``golden.safetensors``.
        contract: contract of the model.
        limit: use at most this many, after shuffling.
        seed: seed of the order.
        fewest: see `CalibrationClips`, as for ``reading`` and ``readers``.
        reading: see there.
        readers: see there.
        note: receives a remark for each folder in which anything is ignored; see `find_clips`.

    Raises:
        ClipError: something does not exist, is of the wrong shape, or there are too few clips.
    """
    places = [data] if isinstance(data, Path) else list(data)
    sources = find_sources(places, contract, note)
    order = np.random.default_rng(seed).permutation(len(sources))[:limit]
    clips = CalibrationClips(contract, tuple(sources[i] for i in order), fewest, reading, readers)
    clips.require_enough(len(clips))
    return clips

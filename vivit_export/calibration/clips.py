"""The clips for a calibration: found, shuffled, and read one at a time according to the contract.

Unusable clips are set aside with a reason, up to a tenth of all clips. Beyond that, or if too few are
left, the calibration is refused. Random data is never used instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.files import sha256_of
from vivit_export.runtime import Preprocessor, find_clips, read_clip

UInt8 = npt.NDArray[np.uint8]

FEWEST_CLIPS = 32
"""Fewer clips say too little about the largest activations."""
GOOD_CLIPS = 256
"""More clips than this hardly change a range; fewer are accepted with a warning."""
_TOLERATED_SHARE = 0.1
_FRAMES = "frames"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Source:
    """Where one clip comes from: a video, or a row of a safetensors file (``row`` is not None)."""

    path: Path
    row: int | None = None

    @property
    def name(self) -> str:
        """The file name, with the row if there is one."""
        return self.path.name if self.row is None else f"{self.path.name}[{self.row}]"


@dataclass(frozen=True)
class CalibrationClips:
    """Clips in the order they are run.

    Attributes:
        contract: says how a clip is drawn from a video, and its shape.
        sources: all clips, shuffled.
        fewest: a calibration with fewer usable clips is refused.
        set_aside: why clips were not used, by name; filled while they are read.
    """

    contract: Contract
    sources: tuple[Source, ...]
    fewest: int = FEWEST_CLIPS
    set_aside: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    @cached_property
    def sha256(self) -> str:
        """Return a hash of the files' content and order, which does not depend on where the files are."""
        files = {path: sha256_of(path) for path in {source.path for source in self.sources}}
        lines = (f"{files[source.path]} {source.row}\n" for source in self.sources)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def read(self, done: Sequence[str] = ()) -> Iterator[tuple[str, UInt8]]:
        """Yield the name and the crops, uint8 (T, H, W, 3), of each usable clip; one is in memory at a time.

        Args:
            done: digests (from `digest`) of the clips that an earlier run used. They are read again only
                to recognize later copies of them.

        Raises:
            ClipError: more than a tenth of the clips are unusable, or too few are left.
        """
        seen = dict.fromkeys(done, "a clip of the earlier run")
        preprocessor = Preprocessor(self.contract.clip, self.contract.preprocess)
        used = len(seen)
        for source in self.sources[self._position(len(seen)) :]:
            reason, crops = self._load(source, preprocessor)
            if crops is not None and crops.min() == crops.max():
                reason = "it shows one color throughout"
            elif crops is not None:
                first = seen.setdefault(digest(crops), source.name)
                reason = f"it is the same clip as {first}" if first != source.name else ""
            if reason or crops is None:
                self.set_aside[source.name] = reason
                self._require_most()
                continue
            used += 1
            yield source.name, crops
        self.require_enough(used)

    def _position(self, used: int) -> int:
        return used + len(self.set_aside)

    def _load(self, source: Source, preprocessor: Preprocessor) -> tuple[str, UInt8 | None]:
        if source.row is not None:
            with safe_open(source.path, "numpy") as file:
                return "", np.ascontiguousarray(file.get_slice(_FRAMES)[source.row])
        try:
            return "", preprocessor.crops(read_clip(source.path, self.contract))
        except ClipError as e:
            return str(e), None

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
) -> CalibrationClips:
    """Find clips and shuffle them, without decoding any.

    Args:
        data: folders of videos, videos, ``.txt`` files with one path per line (relative to the file;
            ``#`` starts a comment), or ``.safetensors`` files with crops ``frames`` uint8
            (N, T, H, W, 3), such as a bundle's ``golden.safetensors``.
        contract: contract of the model.
        limit: use at most this many, after shuffling.
        seed: seed of the order.
        fewest: see `CalibrationClips`.

    Raises:
        ClipError: something does not exist, is of the wrong shape, or there are too few clips.
    """
    places = [data] if isinstance(data, Path) else list(data)
    sources = [source for place in places for source in _sources(place, contract)]
    order = np.random.default_rng(seed).permutation(len(sources))[:limit]
    clips = CalibrationClips(contract, tuple(sources[i] for i in order), fewest)
    clips.require_enough(len(clips))
    return clips


def _sources(place: Path, contract: Contract) -> list[Source]:
    if place.suffix == ".txt" and place.is_file():
        return [Source(path) for path in _listed(place)]
    if place.suffix == ".safetensors" and place.is_file():
        return _rows(place, contract)
    return [Source(path) for path in find_clips(place)]


def _listed(place: Path) -> list[Path]:
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ClipError(f"{place} cannot be read as a list of paths ({e}); write one path a line") from e
    names = [line.partition("#")[0].strip() for line in lines]
    paths = [place.parent / name for name in names if name]
    for path in paths:
        if not path.is_file():
            raise ClipError(f"{place} lists {path}, which is not a file; correct the list")
    if not paths:
        raise ClipError(f"{place} lists no videos; write one path a line")
    return paths


def _rows(place: Path, contract: Contract) -> list[Source]:
    clip = contract.clip
    needed = (clip.num_frames, clip.height, clip.width, 3)
    try:
        with safe_open(place, "numpy") as file:
            found = file.get_slice(_FRAMES) if _FRAMES in file.keys() else None  # noqa: SIM118 - no mapping
            dtype, shape = ("", ()) if found is None else (found.get_dtype(), tuple(found.get_shape()))
    except (OSError, SafetensorError) as e:
        raise ClipError(f"{place} cannot be read as safetensors ({e}); write it again") from e
    if dtype != "U8" or shape[1:] != needed:
        got = f"{dtype} {shape}" if shape else "no such tensor"
        raise ClipError(
            f"{place} must hold {_FRAMES}, uint8 (N, {', '.join(map(str, needed))}), resized and cropped as the model "
            f"takes them; it has {got}"
        )
    return [Source(place, row) for row in range(shape[0])]

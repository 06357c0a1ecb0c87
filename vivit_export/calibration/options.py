"""The options of a calibration. Nothing heavy is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import get_args

from vivit_export.arguments import path_or_none, paths, set_fields, text, whole, whole_or_none
from vivit_export.choices import CalibrationMethod, Decode
from vivit_export.errors import CalibrationError, ClipError, UsageError, option
from vivit_export.files import check_file, why_missing


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """How INT8 and FP8 find their ranges; names follow the command line.

    Paths may be given as strings, and ``data`` as one of them alone.

    Attributes:
        data: folders, videos, lists or crops; see `calibration.clips.find_calibration_clips`. Empty: the demo
            renders its own motions, and any other model is refused.
        method: how ranges are found; see `calibration.observers`.
        smooth: ``auto``, ``none``, or SmoothQuant's alpha for every layer that can be smoothed for free.
        num_clips: use at most this many, after shuffling; None: all.
        seed: seed of the order.
        cache: file that lets a calibration resume; None: one in the user's cache folder.
        ranges: ``ranges.json`` of an earlier calibration of this model, instead of a new calibration.
        decode: ``auto`` or ``full``; see `vivit_export.runtime.clips.video.reading.Reading`.
        readers: how many videos are read at once; None: one per core.
    """

    data: tuple[Path, ...] = ()
    method: CalibrationMethod = "mse"
    smooth: str = "auto"
    num_clips: int | None = None
    seed: int = 0
    cache: Path | None = None
    ranges: Path | None = None
    decode: Decode = "auto"
    readers: int | None = None

    def __post_init__(self) -> None:
        set_fields(self, paths, "data", within="calibration.")
        set_fields(self, path_or_none, "cache", "ranges", within="calibration.")
        if isinstance(self.smooth, Real):
            object.__setattr__(self, "smooth", f"{float(self.smooth):g}")
        set_fields(self, text, "method", "smooth", within="calibration.")
        set_fields(self, text, "decode")
        if self.method not in get_args(CalibrationMethod):
            known = ", ".join(get_args(CalibrationMethod))
            raise UsageError(f"{option('calibration.method', repr(self.method))} is not one of {known}")
        if self.smooth not in ("auto", "none") and not _is_share(self.smooth):
            raise UsageError(
                f"{option('calibration.smooth', repr(self.smooth))} is neither auto, none, nor a number from 0 to 1"
            )
        object.__setattr__(self, "num_clips", whole_or_none("calibration.num_clips", self.num_clips, 1))
        object.__setattr__(self, "readers", whole_or_none("readers", self.readers, 1))
        object.__setattr__(self, "seed", whole("calibration.seed", self.seed))
        if self.decode not in get_args(Decode):
            raise UsageError(f"{option('decode', repr(self.decode))} is not one of {', '.join(get_args(Decode))}")
        unread = [option("decode", self.decode)] if self.decode != "auto" else []
        unread += [option("readers", self.readers)] if self.readers is not None else []
        if unread and not self.data and self.ranges is None:
            raise UsageError(f"{unread[0]} is for videos; name some with {option('calibration.data', 'DIR')}")
        if self.seed < 0:
            raise UsageError(f"{option('calibration.seed', self.seed)} must not be negative")
        if self.ranges is not None and replace(self, ranges=None) != CalibrationOptions():
            raise UsageError(
                f"{option('calibration.ranges')} holds the result of a calibration; leave out the options that would "
                "make one"
            )

    def require_data(self, model: str) -> None:
        """Refuse to calibrate without clips; other tools would use random numbers.

        Raises:
            UsageError: there are neither clips nor ranges.
            InputError: a named file or folder does not exist.
            OutputError: the cache is something that must not be replaced, such as a device.
        """
        if not self.data and self.ranges is None and model != "demo":
            raise UsageError(
                "INT8 and FP8 need ranges calibrated on real clips: name a folder of a few hundred videos with "
                f"{option('calibration.data', 'DIR')} (or {option('calibration.ranges', 'ranges.json')}); random data "
                "would give wrong ranges"
            )
        if self.cache is not None and os.path.exists(self.cache):
            check_file(self.cache, force=True)
        if self.ranges is not None and (reason := why_missing(self.ranges)):
            raise CalibrationError(
                f"{self.ranges} {reason}; make it with vivit calibrate, or take the ranges.json of a bundle"
            )
        for place in self.data:
            if reason := why_missing(place):
                raise ClipError(f"{place} {reason}; give a folder of videos, a list or a file of crops")


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False

"""A calibration's observations so far, in a file, so that it can resume or try another method."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from vivit_export.bundle.tensors import save_tensors
from vivit_export.calibration.observers import Histogram
from vivit_export.errors import CalibrationError, OutputError
from vivit_export.files import cache_folder, writing_file
from vivit_export.records import JsonObject

_FORMAT = "vivit-observations/1"


@dataclass
class Observed:
    """The observations of one tensor (…, channels), in constant memory for any number of clips.

    Attributes:
        histogram: histogram of all its values.
        channel_max: float32 (channels,), largest magnitude of each channel.
        channel_sum: float64 (channels,), sum of each channel.
        num_rows: number of observed rows (vectors of channels).
        rows: float32 (n, channels), a sample of the rows: the first token of every clip and others at random.
    """

    histogram: Histogram
    channel_max: npt.NDArray[np.float32]
    channel_sum: npt.NDArray[np.float64]
    num_rows: int
    rows: npt.NDArray[np.float32]

    @property
    def channel_mean(self) -> npt.NDArray[np.float64]:
        """Return the mean of each channel over all clips."""
        return self.channel_sum / max(1, self.num_rows)


@dataclass
class Observations:
    """The state of a calibration run.

    Attributes:
        tensors: observations by tensor name.
        done: digest of each observed clip, in order.
        set_aside: clips that could not be used, and why.
    """

    tensors: dict[str, Observed] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)


def default_cache(key: dict[str, str]) -> Path:
    """Return the default file for the observations of one model and data."""
    name = "-".join(key[part][:12] for part in sorted(key))
    return cache_folder("calibration") / f"{name}.safetensors"


def load_observations(path: Path, key: dict[str, str]) -> Observations | None:
    """Read the observations of an earlier run; return None if there are none.

    Args:
        path: the cache.
        key: hash of everything that the observations depend on, by name.

    Raises:
        CalibrationError: the file is not a calibration cache, is damaged, or belongs to another model or other data.
    """
    if not path.exists():
        return None
    if not path.is_file():  # opening a pipe would wait for somebody to write into it
        raise CalibrationError(f"{path} is not a file, so it is not a calibration cache; name another file")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        state: JsonObject = json.loads(metadata["state"])
        if metadata["format"] != _FORMAT:
            raise KeyError(metadata["format"])
    except (OSError, SafetensorError, KeyError, ValueError) as e:
        raise CalibrationError(f"{path} is not a calibration cache, or is damaged ({e}); remove it") from e
    other = [part for part, value in key.items() if state["key"].get(part) != value]
    if other:
        raise CalibrationError(
            f"{path} holds a calibration of another {' and '.join(other)}; name another file, or remove it"
        )
    tensors = {name: _observed(arrays, name, facts) for name, facts in state["tensors"].items()}
    return Observations(tensors, state["done"], state["set_aside"])


def save_observations(path: Path, key: dict[str, str], state: Observations) -> None:
    """Write the cache to a temporary file, then rename it; an existing file stays intact until then.

    Nothing but a file is replaced; see `vivit_export.files.check_file`.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, seen in state.tensors.items():
        bins = np.flatnonzero(seen.histogram.counts)
        arrays |= {
            f"{name}#bins": bins.astype(np.int32),
            f"{name}#counts": seen.histogram.counts[bins],
            f"{name}#max": seen.channel_max,
            f"{name}#sum": seen.channel_sum,
            f"{name}#rows": np.ascontiguousarray(seen.rows),
        }
    facts = {n: {"largest": t.histogram.largest, "num_rows": t.num_rows} for n, t in state.tensors.items()}
    text = json.dumps({"key": key, "done": state.done, "set_aside": state.set_aside, "tensors": facts})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_file(path, force=True) as part:
            save_tensors(arrays, part, metadata={"format": _FORMAT, "state": text})
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full; free some space" if full else f"it cannot be written ({e}); choose another file"
        raise OutputError(f"the calibration cache {path} was not written: {why} and run again") from e


def _observed(arrays: dict[str, npt.NDArray[Any]], name: str, facts: JsonObject) -> Observed:
    histogram = Histogram(largest=float(facts["largest"]))
    histogram.counts[arrays[f"{name}#bins"]] = arrays[f"{name}#counts"]
    return Observed(
        histogram, arrays[f"{name}#max"], arrays[f"{name}#sum"], int(facts["num_rows"]), arrays[f"{name}#rows"]
    )

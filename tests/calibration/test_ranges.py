"""Ranges go to a file and come back; they serve the model they were made for, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vivit_export.bundle.manifest import ClipsRecord
from vivit_export.calibration.cache import Observations, Observed
from vivit_export.calibration.linears import LinearGroup
from vivit_export.calibration.observers import Histogram
from vivit_export.calibration.ranges import LayerRange, Ranges, read_ranges
from vivit_export.calibration.smoothing import find_ranges
from vivit_export.errors import CalibrationError
from vivit_export.files import write_json
from vivit_export.precision import Precision

KEY = {"model": "m", "weights": "w", "contract": "c", "clips": "d"}


def observed(rows: np.ndarray[Any, np.dtype[np.float32]]) -> Observed:
    histogram = Histogram()
    histogram.add(rows)
    return Observed(histogram, np.abs(rows).max(axis=0), rows.sum(axis=0, dtype=np.float64), len(rows), rows)


def layers() -> list[LinearGroup]:
    rng = np.random.default_rng(0)
    return [LinearGroup(n, f"{n}.input", (n,), (rng.standard_normal((8, 4)).astype(np.float32),), "free") for n in "ab"]


def find(state: Observations, **options: Any) -> Ranges:
    asked = {"precision": Precision.INT8, "method": "mse", "smooth": "auto", **options}
    return find_ranges(layers(), {}, state, key=KEY, clips=ClipsRecord("clips", 40), count=lambda _n: None, **asked)


@pytest.fixture
def state() -> Observations:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((2, 100, 8)).astype(np.float32)
    rows[1, :, 2] *= 50
    return Observations({"a.input": observed(rows[0]), "b.input": observed(rows[1])}, ["x"] * 40)


def test_ranges_survive_the_file(state: Observations, tmp_path: Path) -> None:
    found = find(state)
    assert found.layers["a"].largest == state.tensors["a.input"].histogram.largest
    assert found.layers["b"].exponents is not None
    found.layers["b"] = dataclasses.replace(found.layers["b"], percent=80, shift=(0.1, 0.25))  # type: ignore[index]
    write_json(tmp_path / "ranges.json", found.to_json())
    assert read_ranges(tmp_path / "ranges.json") == found


def test_another_method_needs_no_other_observations(state: Observations) -> None:
    by = {method: find(state, method=method, smooth="none").layers["a"].amax for method in ("minmax", "percentile")}
    assert by["percentile"] < by["minmax"] == state.tensors["a.input"].histogram.largest


def test_a_layer_that_is_always_zero_has_no_range(state: Observations, tmp_path: Path) -> None:
    state.tensors["b.input"] = observed(np.zeros((10, 8), np.float32))
    found = find(state)
    assert found.layers["b"].amax == 0
    write_json(tmp_path / "ranges.json", found.to_json())
    assert read_ranges(tmp_path / "ranges.json") == found


@pytest.mark.parametrize("part", ["model", "weights", "contract"])
def test_ranges_of_another_model_are_refused(state: Observations, part: str) -> None:
    found = find(state)
    found.require({**KEY, "clips": "other"}, Precision.INT8, Path("ranges.json"), "so")
    with pytest.raises(
        CalibrationError, match=rf"^ranges\.json was calibrated for another {part}; calibrate this one: so$"
    ):
        found.require({**KEY, part: "x"}, Precision.INT8, Path("ranges.json"), "so")
    with pytest.raises(CalibrationError, match="holds ranges for int8; use precision=int8 with them"):
        found.require(KEY, Precision.FP8, Path("ranges.json"), "so")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "vivit-ranges/0"}, "its format is not vivit-ranges/1"),
        ({"layers": {"a": {"amax": 1.0}}}, "ranges.layers.a lacks the field 'largest'"),
        (
            {"layers": {"a": {"amax": -1, "largest": 1, "exponents": None, "alpha": None, "error": 0}}},
            "range of a is",
        ),
        (
            {"layers": {"a": {"amax": 1, "largest": 1, "exponents": None, "alpha": None, "error": 0, "percent": 0}}},
            "weights of a cannot span 0 percent",
        ),
        ({"layers": []}, r"ranges.layers must be a JSON object, got \[\]"),
        ({"extra": 1}, "ranges has an unknown field 'extra'"),
    ],
)
def test_a_damaged_file_is_refused(state: Observations, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / "ranges.json").write_text(json.dumps({**find(state).to_json(), **change}))
    with pytest.raises(CalibrationError, match=rf"ranges\.json is not a file of ranges \(.*{said}"):
        read_ranges(tmp_path / "ranges.json")


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\x00")
    for path in (tmp_path / "x", tmp_path / "nowhere"):
        with pytest.raises(CalibrationError, match="is not a file of ranges"):
            read_ranges(path)


def test_divisors_are_the_exponents() -> None:
    assert LayerRange(1, 1, None, None, 0).divisors is None
    np.testing.assert_array_equal(LayerRange(1, 1, (1, -2), 0.5, 0).divisors, [1, -2])

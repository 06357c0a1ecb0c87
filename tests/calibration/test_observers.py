"""Histograms and the ranges that follow from them, against exact values and ONNX Runtime's own calibrator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vivit_export.calibration.observers import (
    METHODS,
    Histogram,
    find_range,
    rounding,
)
from vivit_export.precision import Precision

Float32 = npt.NDArray[np.float32]

FINITE = arrays(np.float32, st.integers(1, 50), elements=st.floats(-(2.0**126), 2.0**126, width=32))


def histogram(values: Float32) -> Histogram:
    found = Histogram()
    found.add(np.ascontiguousarray(values, np.float32))
    return found


def heavy_tailed(count: int = 200_000, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_t(4, count).astype(np.float32)


@given(FINITE)
@example(np.array([0.99 * 2.0**126, 2.0**126], np.float32))  # the largest is where the bin below it ends
def test_every_value_lies_in_its_bin_and_none_is_lost(values: Float32) -> None:
    found = histogram(values)
    low, high, counts = found.occupied()
    magnitudes = np.abs(values).astype(np.float64)
    assert counts.sum() == len(values)
    assert found.largest == magnitudes.max()
    for a, b, count in zip(low, high, counts, strict=True):
        inside = (magnitudes >= a) & ((magnitudes < b) | (a == low[-1]))
        assert inside.sum() == count
    assert (high - low <= np.maximum(low / 128, 2.0**-126)).all()


@given(st.lists(FINITE, min_size=1, max_size=4))
def test_clips_add_up_in_any_order_and_nothing_widens(parts: list[Float32]) -> None:
    forwards, backwards, at_once = Histogram(), Histogram(), histogram(np.concatenate(parts))
    for part in parts:
        forwards.add(part)
    for part in reversed(parts):
        backwards.add(part)
    for found in (forwards, backwards):
        np.testing.assert_array_equal(found.counts, at_once.counts)
        assert found.largest == at_once.largest
    assert forwards.counts.nbytes == 2**18


def test_nan_and_infinity_are_counted_apart() -> None:
    found = Histogram()
    found.add(np.array([1, np.nan, -np.inf, np.inf, -2], np.float32), 2.0)
    assert found.nonfinite == 3
    assert found.occupied()[2].sum() == 2


def test_many_values_are_counted_in_blocks() -> None:
    values = heavy_tailed(600_001)
    found = histogram(values)
    assert found.counts.sum() == len(values)
    bits = np.abs(values).view(np.uint32) >> 16
    np.testing.assert_array_equal(found.counts, np.bincount(bits, minlength=2**15))


def test_percentile_is_that_of_the_values() -> None:
    values = heavy_tailed()
    found = METHODS["percentile"](histogram(values), rounding(Precision.INT8))
    assert found == pytest.approx(np.quantile(np.abs(values), 0.9999), rel=0.01)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_mse_takes_the_best_of_the_ranges_it_tries(precision: Precision) -> None:
    values = heavy_tailed(50_000).astype(np.float64)
    rounded = rounding(precision)
    largest = np.abs(values).max()

    def error(amax: float) -> float:
        return float(np.square(rounded(values / amax) * amax - values).mean())

    best = min(error(largest * i / 128) for i in range(1, 129))
    found = METHODS["mse"](histogram(values.astype(np.float32)), rounded)
    assert error(found) <= 1.02 * best
    if precision is Precision.INT8:
        assert found < 0.9 * largest  # the tail does not pay for its levels


@pytest.mark.parametrize("shape", ["laplace", "normal", "t"])
def test_entropy_agrees_with_onnxruntimes_calibrator(shape: str) -> None:
    """Both follow Migacz's slides; theirs is signed, and treats empty bins otherwise."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    rng = np.random.default_rng(0)
    draw: dict[str, Callable[..., Any]] = {
        "laplace": rng.laplace,
        "normal": rng.normal,
        "t": lambda size: rng.standard_t(4, size),
    }
    values = draw[shape](size=400_000).astype(np.float32)
    collector = calibrate.HistogramCollector("entropy", True, 2048, 128, 99.99, None)
    collector.collect({"x": [values]})
    low, high = collector.compute_collection_result()["x"][:2]
    expected = max(-float(low), float(high))
    found = METHODS["entropy"](histogram(values), rounding(Precision.INT8))
    assert found == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
@pytest.mark.parametrize(
    "values",
    [np.ones(1), np.full(1000, -3.0), np.array([0, 0, 1e-38]), np.array([1e38, 1]), np.linspace(-1, 1, 9)],
    ids=["one", "constant", "tiny", "huge", "few"],
)
def test_odd_distributions_have_a_range(method: str, precision: Precision, values: npt.NDArray[np.float64]) -> None:
    found = find_range(histogram(values.astype(np.float32)), method, precision)
    assert 0 < found <= np.float32(np.abs(values).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_none_and_rare_values_are_not_forgotten(method: str) -> None:
    assert find_range(histogram(np.zeros(100, np.float32)), method, Precision.INT8) == 0
    rare = np.zeros(100_000, np.float32)
    rare[0] = 5
    assert find_range(histogram(rare), method, Precision.INT8) > 0


@given(st.floats(-2, 2))
def test_rounding_is_that_of_the_types(value: float) -> None:
    clipped = np.clip(value, -1, 1)
    assert rounding(Precision.INT8)(np.array([value]))[0] == pytest.approx(np.rint(clipped * 127) / 127)
    expected = float(np.float64(ml_dtypes.float8_e4m3fn(clipped * 448)) / 448)
    assert rounding(Precision.FP8)(np.array([value]))[0] == expected

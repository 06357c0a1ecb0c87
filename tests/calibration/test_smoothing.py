"""Smoothing finds outlier channels, pays only where it helps, and is measured on what was really seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from vivit_export.calibration.cache import Observed
from vivit_export.calibration.linears import LinearGroup, quantize_input, quantize_weights
from vivit_export.calibration.observers import Histogram
from vivit_export.calibration.smoothing import ALPHAS, REACHES, choose, smoothing_exponents
from vivit_export.precision import Precision

Float32 = npt.NDArray[np.float32]


def observed(rows: Float32) -> Observed:
    histogram = Histogram()
    histogram.add(rows)
    return Observed(histogram, np.abs(rows).max(axis=0), rows.sum(axis=0, dtype=np.float64), len(rows), rows)


def linears(smoothing: str = "free", num_linears: int = 1, seed: int = 0) -> LinearGroup:
    weights = np.random.default_rng(seed).standard_normal((num_linears, 64, 48)).astype(np.float32)
    names = tuple(f"l{i}" for i in range(num_linears))
    return LinearGroup("layer", "x", names, tuple(weights), smoothing)


def activations(outliers: float = 1.0, count: int = 400) -> Float32:
    rows = np.random.default_rng(1).standard_normal((count, 64)).astype(np.float32)
    rows[:, ::16] *= np.float32(outliers)
    return rows


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
@pytest.mark.parametrize("num_linears", [1, 3])
def test_the_error_is_that_of_the_output(precision: Precision, num_linears: int) -> None:
    rows, one = activations(), linears(num_linears=num_linears)
    choice = choose(one, observed(rows), precision, "minmax", "none")
    exact = rows @ one.joined
    stored = np.concatenate([q.values for q in quantize_weights(one, precision)], axis=1)
    got = quantize_input(rows, float(np.abs(rows).max()), precision) @ stored
    assert choice.error == pytest.approx(float(np.square(got - exact).mean() / np.square(exact).mean()), rel=1e-3)
    assert choice.amax == np.abs(rows).max()
    assert 0 < choice.error < (1e-3 if precision is Precision.INT8 else 1e-2)


@pytest.mark.parametrize("smoothing", ["free", "mul"])
def test_outlier_channels_are_brought_back(smoothing: str) -> None:
    rows, one = activations(outliers=100), linears(smoothing)
    plain, smoothed = (choose(one, observed(rows), Precision.INT8, "minmax", how) for how in ("none", "auto"))
    assert smoothed.exponents is not None and smoothed.alpha in ALPHAS
    assert smoothed.error < 0.1 * plain.error
    assert min(smoothed.exponents[::16]) > np.delete(smoothed.exponents, np.s_[::16]).max()
    assert smoothed.amax < plain.amax / 4


def test_a_multiplication_must_pay_more_than_a_free_one() -> None:
    # Outliers this small help a little: enough for what is free.
    rows = activations(outliers=1.3)
    free, mul = (choose(linears(how), observed(rows), Precision.INT8, "minmax") for how in ("free", "mul"))
    assert free.exponents is not None
    assert mul.exponents is None


def test_where_it_is_not_exact_nothing_is_smoothed() -> None:
    assert choose(linears("none"), observed(activations(outliers=100)), Precision.INT8, "mse").exponents is None
    assert choose(linears("none"), observed(activations(outliers=100)), Precision.INT8, "mse", "0.5").exponents is None
    assert choose(linears("mul"), observed(activations(outliers=100)), Precision.INT8, "mse", "0.5").exponents is None


def test_a_given_alpha_is_taken_as_it_is() -> None:
    seen, one = observed(activations(outliers=30)), linears()
    choice = choose(one, seen, Precision.INT8, "mse", "0.8")
    assert choice.alpha == 0.8
    np.testing.assert_array_equal(choice.exponents, smoothing_exponents(one, seen, 0.8))


def test_exponents_follow_the_formula() -> None:
    rows, one = activations(outliers=30), linears()
    found = smoothing_exponents(one, observed(rows), 0.5)
    s = np.sqrt(np.abs(rows).max(axis=0) / np.abs(one.joined).max(axis=1)).astype(np.float64)
    np.testing.assert_array_equal(found, np.rint(np.log2(s) - np.median(np.log2(s))))


def test_dead_channels_are_left_alone() -> None:
    rows, one = activations(outliers=30), linears()
    rows[:, 3] = 0
    one.weights[0][5] = 0
    exponents = smoothing_exponents(one, observed(rows), 0.5)
    assert exponents[3] == exponents[5] == 0
    assert not smoothing_exponents(one, observed(np.zeros_like(rows)), 0.5).any()


def test_the_range_after_smoothing_knows_the_largest_value_of_each_channel() -> None:
    """The kept rows may lack it."""
    rows = activations(outliers=100)
    seen = observed(rows)
    seen.rows = rows[:50]
    choice = choose(linears(), seen, Precision.INT8, "minmax")
    assert choice.exponents is not None
    assert choice.amax == (np.abs(rows).max(axis=0) / np.exp2(choice.exponents)).max()


# --- bias correction ---------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
@pytest.mark.parametrize("smooth", ["none", "0.5"])
def test_the_mean_of_the_output_is_given_back(precision: Precision, smooth: str) -> None:
    rows = activations() + np.linspace(-2, 3, 64, dtype=np.float32)  # means that rounded weights shift
    one = dataclasses.replace(linears(), biased=True)
    bare = choose(linears(), observed(rows), precision, "minmax", smooth)
    choice = choose(one, observed(rows), precision, "minmax", smooth)
    assert bare.shift is None and choice.shift is not None
    assert (choice.amax, choice.alpha) == (bare.amax, bare.alpha)
    assert choice.error < 0.9 * bare.error

    factors = np.exp2(choice.exponents if choice.exponents is not None else np.zeros(64))
    (stored,) = quantize_weights(one, precision, [one.weights[0] * factors[:, None].astype(np.float32)])
    lost = (rows.astype(np.float64) @ one.weights[0] - (rows / factors) @ stored.values.astype(np.float64)).mean(axis=0)
    np.testing.assert_allclose(choice.shift, lost, atol=1e-4)
    assert np.abs(lost).max() > 1e-2


def test_a_correction_that_does_not_help_is_left_out() -> None:
    rows = activations()
    far = dataclasses.replace(observed(rows), channel_sum=np.full(64, 1e4) * len(rows))  # means that the rows lack
    assert choose(dataclasses.replace(linears(), biased=True), far, Precision.INT8, "mse").shift is None


def test_several_linears_are_not_corrected() -> None:
    assert choose(linears(num_linears=3), observed(activations() + 1), Precision.INT8, "mse").shift is None


# --- the reach of the weights ------------------------------------------------------------------


def squared_error(weights: Sequence[Float32], rows: Float32, percent: int) -> float:
    """As the docstring says, from the beginning; the scale is the next fp16 value not below."""
    wanted = max(float(np.abs(weight).max()) for weight in weights) * percent / 100 / 127
    step = float(np.float16(wanted))
    if step < wanted:
        step = float(np.nextafter(np.float16(wanted), np.float16(np.inf)))
    power = np.square(rows.astype(np.float64)).mean(axis=0)
    stored = [np.clip(np.rint(weight / step), -127, 127) * step for weight in weights]
    return sum(float((power @ np.square(q - w)).sum()) for q, w in zip(stored, weights, strict=True))


def far_weights() -> LinearGroup:
    """Three Linears with a few weights that lie far out."""
    three = linears(num_linears=3)
    three.weights[0][::20, 0] *= 2
    return three


def test_linears_of_one_scale_reach_as_far_as_their_output_wants() -> None:
    rows, three = activations(), far_weights()
    choice = choose(three, observed(rows), Precision.INT8, "mse", "none")
    errors = {percent: squared_error(three.weights, rows, percent) for percent in REACHES}
    assert choice.percent == min(errors, key=errors.__getitem__) < 100
    assert errors[choice.percent] < 0.98 * errors[100]

    stored = np.concatenate([q.values for q in quantize_weights(three, Precision.INT8, percent=choice.percent)], axis=1)
    exact = rows @ three.joined
    got = quantize_input(rows, choice.amax, Precision.INT8) @ stored
    assert choice.error == pytest.approx(float(np.square(got - exact).mean() / np.square(exact).mean()), rel=1e-3)


@pytest.mark.parametrize(("precision", "method"), [(Precision.FP8, "mse"), (Precision.INT8, "minmax")])
def test_weights_are_not_clipped_where_that_gains_nothing_or_was_not_asked_for(
    precision: Precision, method: str
) -> None:
    assert choose(far_weights(), observed(activations()), precision, method).percent == 100


def test_columns_with_scales_of_their_own_keep_their_reach() -> None:
    three = far_weights()
    one = dataclasses.replace(three, linears=("l0",), weights=three.weights[:1])
    assert choose(one, observed(activations()), Precision.INT8, "mse").percent == 100


def test_weights_that_int8_holds_exactly_keep_their_reach() -> None:
    weights = np.random.default_rng(0).integers(-127, 128, (3, 64, 48)).astype(np.float32)
    weights[:, 0] = 127
    exact = dataclasses.replace(linears(num_linears=3), weights=tuple(weights))
    assert choose(exact, observed(activations()), Precision.INT8, "mse", "none").percent == 100

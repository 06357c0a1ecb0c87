"""What codes and scales mean, in NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vivit_export.calibration.linears import LinearGroup, encode, fp16_scale, quantize_weights
from vivit_export.precision import Precision

PRECISIONS = (Precision.INT8, Precision.FP8)
LARGEST = {Precision.INT8: 127, Precision.FP8: 448}

WEIGHTS = arrays(np.float32, (4, 3), elements=st.floats(-100, 100, width=32))


@given(WEIGHTS, st.sampled_from(PRECISIONS))
def test_codes_stay_in_range_and_close(weight: npt.NDArray[np.float32], precision: Precision) -> None:
    (stored,) = quantize_weights(LinearGroup("l", "x", ("l",), (weight,), "none"), precision)
    codes = stored.codes.astype(np.float64)
    assert np.abs(codes).max(initial=0) <= LARGEST[precision]
    assert (stored.scale == stored.scale.astype(np.float16)).all()
    step = stored.scale * (1 if precision is Precision.INT8 else np.maximum(np.abs(codes) / 8, 2.0**-9))
    assert (np.abs(stored.values - weight) <= 0.5001 * step + 1e-7 * np.abs(weight)).all()


def test_scales_are_per_column_but_where_tensorrt_needs_one() -> None:
    weights = tuple(np.random.default_rng(i).standard_normal((8, 4)).astype(np.float32) for i in range(3))
    one = LinearGroup("fc1", "x", ("fc1",), weights[:1], "free")
    three = LinearGroup("qkv", "x", ("q", "k", "v"), weights, "free")
    assert quantize_weights(one, Precision.INT8)[0].scale.shape == (4,)
    assert quantize_weights(one, Precision.FP8)[0].scale.shape == ()
    for precision in PRECISIONS:
        scales = [stored.scale for stored in quantize_weights(three, precision)]
        assert {scale.shape for scale in scales} == {()}
        assert len({float(scale) for scale in scales}) == 1


def test_a_dead_column_and_a_tiny_range_have_a_scale() -> None:
    weight = np.zeros((4, 2), np.float32)
    (stored,) = quantize_weights(LinearGroup("l", "x", ("l",), (weight,), "none"), Precision.INT8)
    assert (stored.scale > 0).all() and not stored.values.any()
    assert fp16_scale(1e-12, Precision.INT8) > 0


@given(st.floats(1e-4, 1e4), st.sampled_from(PRECISIONS))
def test_the_scale_is_the_next_fp16_value_and_never_cuts_the_range(amax: float, precision: Precision) -> None:
    scale = float(fp16_scale(amax, precision))
    assert scale == float(np.float16(scale))
    assert amax <= scale * LARGEST[precision] * (1 + 1e-12) <= amax * (1 + 2**-10) + 2**-24 * LARGEST[precision]


def test_int8_rounds_ties_to_even_and_never_uses_minus_128() -> None:
    values = np.array([0.5, 1.5, -0.5, -1000, 1000, 126.6], np.float32)
    assert encode(values, np.ones((), np.float32), Precision.INT8).tolist() == [0, 2, 0, -127, 127, 127]
    assert encode(values, np.ones((), np.float32), Precision.FP8).dtype == np.dtype(ml_dtypes.float8_e4m3fn)

"""Processors of many kinds: their arithmetic, drawn at random."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import strategies as st

from vivit_export.contract import Clip, Preprocess

CLIP = Clip(num_frames=2, height=16, width=24, tubelet_size=(1, 8, 8))
NO_RESIZE = Preprocess(do_resize=False, crop_size=(CLIP.height, CLIP.width))
# Every level in every channel, in another order in each: two frames of 384 pixels hold 256 levels thrice.
FRAMES = np.stack([np.resize(np.roll(np.arange(256), 85 * c), (2, 16, 24)) for c in range(3)], axis=-1).astype(np.uint8)

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Where only the table gives the same bits.
ODD = Preprocess(rescale_factor=0.0123456789, offset=False, mean=(0.4, 0.5, 0.6), do_resize=False, crop_size=(16, 24))

_FINITE = st.floats(min_value=-4, max_value=4, allow_subnormal=False)
_FACTORS = st.one_of(
    st.integers(1, 1000).map(lambda n: 1 / n),
    st.integers(1, 1000).map(lambda n: 2 / n),
    st.floats(min_value=1e-4, max_value=10),
    st.floats(min_value=-2, max_value=-1e-4),
    st.just(0.0),
)
_CHANNELS = st.one_of(_FINITE.map(lambda v: (v, v, v)), st.tuples(_FINITE, _FINITE, _FINITE))
_NONZERO = st.floats(min_value=0.01, max_value=4).flatmap(lambda v: st.sampled_from((v, -v)))


@st.composite
def arithmetics(draw: st.DrawFn) -> Preprocess:
    """A processor that neither resizes nor crops `FRAMES`."""
    do_rescale = draw(st.booleans())
    return dataclasses.replace(
        NO_RESIZE,
        do_rescale=do_rescale,
        rescale_factor=draw(_FACTORS),
        offset=do_rescale and draw(st.booleans()),
        do_normalize=draw(st.booleans()),
        mean=draw(_CHANNELS),
        std=draw(st.one_of(_NONZERO.map(lambda v: (v, v, v)), st.tuples(_NONZERO, _NONZERO, _NONZERO))),
    )

"""Frames of noise, and the processor of Hugging Face that makes the reference pixels."""

from __future__ import annotations

import numpy as np
from transformers import VivitImageProcessor

from vivit_export.contract import Clip, Preprocess

DEFAULT = Preprocess(shortest_edge=48, crop_size=(32, 40))


CLIP = Clip(4, 32, 40, (2, 16, 8))


def noise(num_frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random pixels with runs of black and white, so that filters with negative lobes clip."""
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    frames[:, : height // 3, : width // 3] = 255 * (frames[:, : height // 3, : width // 3] > 127)
    return frames


def hf_processor(p: Preprocess) -> VivitImageProcessor:
    size = {"shortest_edge": p.shortest_edge} if p.size is None else dict(zip(("height", "width"), p.size, strict=True))
    return VivitImageProcessor(
        do_resize=p.do_resize,
        size=size if p.do_resize else None,
        resample=p.resample,
        do_center_crop=p.do_center_crop,
        crop_size=dict(zip(("height", "width"), p.crop_size, strict=True)),
        do_rescale=p.do_rescale,
        rescale_factor=p.rescale_factor,
        offset=p.offset,
        do_normalize=p.do_normalize,
        image_mean=list(p.mean),
        image_std=list(p.std),
    )

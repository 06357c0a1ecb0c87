"""Small pictures of the golden clips: a few frames of each, side by side, as data addresses for a page."""

from __future__ import annotations

import base64
from collections.abc import Collection
from io import BytesIO
from math import prod
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from vivit_export.bundle.golden import golden_rows
from vivit_export.bundle.tensors import TensorHeader, read_headers
from vivit_export.contract import Contract
from vivit_export.errors import BundleError
from vivit_export.files import open_regular

FRAMES = 4
"""How many frames a picture shows, spread evenly over the clip."""
SIDE = 72
"""Pixels of the longer side of a frame in it."""
_QUALITY = 72


def films(path: Path, contract: Contract, num_clips: int, rows: Collection[int]) -> dict[int, str]:
    """Return a picture of some clips of a check, by row.

    Args:
        path: ``golden.safetensors``; only the frames that are shown are read.
        contract: whose clips it must hold.
        num_clips: of the check.
        rows: which of them; those that the file does not have are left out.

    Returns:
        JPEG as ``data:`` addresses. Nothing, if the file is missing or holds something else.
    """
    try:
        with open_regular(path) as file:
            told = read_headers(file, path)
            clips = told.get("frames")
            if clips is None or not _fits(clips, contract):
                return {}
            begin = file.seek(0, SEEK_END) - max(tensor.data_offsets[1] for tensor in told.values())
            begin += clips.data_offsets[0]
            kept, shape = golden_rows(num_clips, clips.shape[0]), clips.shape[1:]
            places = {row: place for place, row in enumerate(kept) if row in rows}
            return {row: _film(file, begin + place * prod(shape), shape) for row, place in places.items()}
    except (OSError, BundleError):
        return {}


def _fits(clips: TensorHeader, contract: Contract) -> bool:
    height, width = contract.io.frame_size or (contract.clip.height, contract.clip.width)
    return clips.dtype == "U8" and clips.shape[1:] == (contract.clip.num_frames, height, width, 3)


def _film(file: BinaryIO, begin: int, shape: tuple[int, ...]) -> str:
    count, height, width, _ = shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = sorted({round(i * (count - 1) / max(1, FRAMES - 1)) for i in range(FRAMES)})
    film = Image.new("RGB", (size[0] * len(shown), size[1]))
    for place, index in enumerate(shown):
        file.seek(begin + index * height * width * 3)
        frame = np.frombuffer(file.read(height * width * 3), np.uint8).reshape(height, width, 3)
        film.paste(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR), (place * size[0], 0))
    out = BytesIO()
    film.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")

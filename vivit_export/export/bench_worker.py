"""The child process of `vivit_export.runtime.bench` for the eager network: what engines are compared with.

``python -m vivit_export.export.bench_worker BUNDLE CHECKPOINT KIND``, where KIND is as in `parse_kind`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import read_bundle
from vivit_export.export.recheck import load_exported_checkpoint
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.bench_report import parse_kind
from vivit_export.runtime.bench_worker import work


class Eager:
    """A PyTorch network on the GPU where there is one, else on the CPU."""

    def __init__(self, folder: str, checkpoint: str, kind: str) -> None:
        bundle = read_bundle(folder)
        attention, precision, compiled = parse_kind(kind)
        loaded = load_exported_checkpoint(bundle, checkpoint or None)
        self._run, device = loaded.timed(attention, precision, compiled=compiled)
        self.engine = f"{loaded.framework} {kind}, {device}"
        self.contract = bundle.contract
        self._preprocessor = Preprocessor(bundle.contract.clip, bundle.contract.preprocess)
        self._pixels: dict[int, npt.NDArray[np.float32]] = {}

    def run(self, batch: npt.NDArray[Any]) -> object:
        """Run as many clips as the batch holds."""
        return self._run(self._pixels_for(len(batch)))

    def prepare(self, batch: npt.NDArray[Any]) -> None:
        """Make the pixels before the clock runs: this network does not take 8-bit crops."""
        self._pixels_for(len(batch))

    def split(self, frames: npt.NDArray[np.uint8]) -> dict[str, float]:
        """Time preprocessing and the network, with its copies."""
        start = time.perf_counter()
        pixels = self._preprocessor(frames)
        between = time.perf_counter()
        self._run(pixels)
        return {"preprocess": between - start, "compute": time.perf_counter() - between}

    def failures(self) -> list[str]:
        """The reference itself is held to nothing."""
        return []

    def _pixels_for(self, count: int) -> npt.NDArray[np.float32]:
        if count not in self._pixels:
            clip = self.contract.clip
            shape = (count, clip.num_frames, 3, clip.height, clip.width)
            self._pixels = {count: np.random.default_rng(count).standard_normal(shape, dtype=np.float32)}
        return self._pixels[count]


if __name__ == "__main__":
    sys.exit(work(lambda: Eager(*sys.argv[1:])))

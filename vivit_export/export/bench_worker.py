"""The child process of `vivit_export.runtime.bench` for the eager network: what engines are compared with.

``python -m vivit_export.export.bench_worker BUNDLE CHECKPOINT KIND``, where KIND is as in `parse_kind`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import read_bundle
from vivit_export.export.recheck import load_exported_checkpoint
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.bench_report import parse_kind
from vivit_export.runtime.bench_worker import timed_decoding, work

Pixels = npt.NDArray[np.float32]


class Eager:
    """A PyTorch network on the GPU where there is one, else on the CPU."""

    def __init__(self, folder: str, checkpoint: str, kind: str) -> None:
        bundle = read_bundle(folder)
        attention, precision, compiled = parse_kind(kind)
        loaded = load_exported_checkpoint(bundle, checkpoint or None)
        self._run, device = loaded.timed(attention, precision, compiled=compiled)
        self.engine = f"{loaded.framework} {kind}, {device}"
        self._contract = bundle.contract
        self._preprocessor = Preprocessor(bundle.contract.clip, bundle.contract.preprocess)

    def batch(self, count: int, seed: int) -> Pixels:
        """Noise as the network takes it, float32 (B, T, 3, H, W): preprocessing is not timed here."""
        clip = self._contract.clip
        shape = (count, clip.num_frames, 3, clip.height, clip.width)
        return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)

    def run(self, batch: Pixels) -> object:
        """Run a batch, copies to and from the GPU included."""
        return self._run(batch)

    def split(self, video: Path) -> dict[str, float]:
        """Time decoding, preprocessing and the network, with its copies."""
        frames, decode = timed_decoding(self._contract, video)
        start = time.perf_counter()
        pixels = self._preprocessor(frames)
        preprocess = time.perf_counter() - start
        self._run(pixels)
        return {"decode": decode, "preprocess": preprocess, "compute": time.perf_counter() - start - preprocess}

    def failures(self) -> list[str]:
        """The reference itself is held to nothing."""
        return []


if __name__ == "__main__":
    sys.exit(work(lambda: Eager(*sys.argv[1:])))

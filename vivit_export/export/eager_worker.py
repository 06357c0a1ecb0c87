"""The child process of `vivit_export.runtime.bench.run` for the eager network that engines are compared with.

``python -m vivit_export.export.eager_worker BUNDLE CHECKPOINT KIND DEVICE``, where KIND is as in `parse_kind`. An
empty BUNDLE times the checkpoint alone; then no videos can be read.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vivit_export.bundle import read_bundle
from vivit_export.errors import UsageError, option
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.bench.report import parse_kind
from vivit_export.runtime.bench.worker import timed_decoding, work

if TYPE_CHECKING:
    from vivit_export.export.checkpoint.timed_network import Pixels


class Eager:
    """PyTorch's network, on the named device or, by default, on the GPU if there is one."""

    def __init__(self, folder: str, checkpoint: str, kind: str, device: str = "") -> None:
        # Here, so that a machine without torch is told so as an answer.
        from vivit_export.export.checkpoint.load import load_checkpoint
        from vivit_export.export.checkpoint.timed_network import TimedNetwork

        attention, precision, compiled = parse_kind(kind)
        if folder:
            from vivit_export.export.reference import load_exported_checkpoint  # and with it all that reads videos

            bundle = read_bundle(folder)
            loaded = load_exported_checkpoint(bundle, checkpoint or None)
        else:
            loaded = load_checkpoint(checkpoint)
        self._contract = bundle.contract if folder else None
        self._clip = loaded.clip
        self._preprocessor = Preprocessor(loaded.clip, loaded.preprocess)
        self._network = TimedNetwork(loaded, attention, precision, compiled=compiled, device=device or None)
        self.engine = f"{loaded.framework} {kind}, {self._network.device}"
        self.gpu = self._network if self._network.on_gpu else None

    def batch(self, count: int, seed: int) -> Pixels:
        """Return noise as the network takes it, float32 (B, T, 3, H, W): preprocessing is not timed here."""
        shape = (count, self._clip.num_frames, 3, self._clip.height, self._clip.width)
        return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)

    def run(self, batch: Pixels) -> object:
        """Run a batch, copies to and from the GPU included."""
        return self._network.run(batch)

    def split(self, video: Path) -> dict[str, float]:
        """Time decoding, preprocessing and the network, with its copies."""
        if self._contract is None:
            raise UsageError(
                f"without a bundle nothing says how a clip is drawn from a video; leave {option('video')} out"
            )
        frames, decode = timed_decoding(self._contract, video)
        start = time.perf_counter()
        pixels = self._preprocessor(frames)
        preprocess = time.perf_counter() - start
        self._network.run(pixels)
        return {"decode": decode, "preprocess": preprocess, "compute": time.perf_counter() - start - preprocess}

    def failures(self) -> list[str]:
        """Return None: the reference has no gate."""
        return []


def _import_ahead() -> None:
    """Import what `Eager` needs while other contenders do the same: they are asked one after the other."""
    with contextlib.suppress(ImportError):  # which is an answer, later
        importlib.import_module("vivit_export.export.checkpoint.timed_network")


if __name__ == "__main__":
    _import_ahead()
    sys.exit(work(lambda: Eager(*sys.argv[1:])))

"""The network of a checkpoint on a device, which engines are timed against."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vivit_export.export.checkpoint.device import named_device, use_full_float32
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.checkpoint.low_precision import torch_dtype
from vivit_export.precision import Precision

Pixels = npt.NDArray[np.float32]


class TimedNetwork:
    """PyTorch's network with one kind of attention and one precision; the checkpoint cannot be used afterward.

    Args:
        checkpoint: the loaded checkpoint.
        attention: ``eager`` or ``sdpa``.
        precision: of weights and arithmetic; fp32 is without TF32.
        compiled: whether to use ``torch.compile``, which makes kernels at the first call of each batch.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None: the first GPU, or the CPU.

    Attributes:
        device: its name, for people.
        on_gpu: whether `compute`, `tensor_bytes` and `rest` apply.

    Raises:
        EnvironmentFault: PyTorch cannot use that GPU.
    """

    def __init__(
        self, checkpoint: Checkpoint, attention: str, precision: Precision, *, compiled: bool, device: str | None = None
    ) -> None:
        self._device = named_device(device)
        self.on_gpu = self._device.type == "cuda"
        use_full_float32()
        checkpoint.adapter.attend(checkpoint.network, attention)
        self._dtype = torch_dtype(precision)
        checkpoint.network.to(self._device, self._dtype)
        outputs = checkpoint.outputs
        self._outputs: Any = _compile(outputs) if compiled else outputs
        threads = f"CPU, {torch.get_num_threads()} threads"
        self.device = torch.cuda.get_device_name(self._device) if self.on_gpu else threads

    def run(self, pixels: Pixels) -> dict[str, npt.NDArray[np.float32]]:
        """Run a batch from host memory to host memory.

        Args:
            pixels: float32 (B, T, 3, H, W).

        Returns:
            float32 arrays by output name.
        """
        with torch.inference_mode():
            return {name: out.float().cpu().numpy() for name, out in self._outputs(self._upload(pixels)).items()}

    def compute(self, pixels: Pixels) -> float:
        """Return the seconds between two CUDA events around the network, with its input already on the GPU."""
        event: Any = torch.cuda.Event  # without annotations
        start, end = event(enable_timing=True), event(enable_timing=True)
        with torch.inference_mode(), torch.cuda.device(self._device):
            batch = self._upload(pixels)
            start.record()
            self._outputs(batch)
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def tensor_bytes(self) -> int:
        """Return the peak GPU memory of tensors."""
        return int(torch.cuda.max_memory_allocated(self._device))

    def rest(self) -> None:
        """Free GPU memory that is only kept for the next call."""
        torch.cuda.empty_cache()

    def _upload(self, pixels: Pixels) -> torch.Tensor:
        # The GPU converts: `to(device, dtype)` would do that on the CPU first.
        return torch.from_numpy(pixels).to(self._device).to(self._dtype)


def _compile(outputs: Any) -> Any:
    """Compile for static shapes, so that each batch has kernels of its own, as in an engine."""
    import torch._dynamo.config as settings  # takes a second, as all of the compiler

    settings.recompile_limit = settings.accumulated_recompile_limit  # after 8 batch sizes it would fall back to eager
    return torch.compile(outputs, dynamic=False)

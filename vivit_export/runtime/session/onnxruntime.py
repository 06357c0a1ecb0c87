"""Run a bundle's graph in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.errors import BuildError, MissingDependencyError


class OnnxRuntimeSession:
    """One ONNX graph on the CPU, called with whole batches.

    Args:
        model: path of the ``.onnx`` file; external data lies beside it.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        BuildError: ONNX Runtime refuses the graph.
    """

    def __init__(self, model: Path) -> None:
        try:
            import onnxruntime
        except ImportError as e:
            raise MissingDependencyError(
                'ONNX Runtime is not installed; install it with: pip install "vivit-export[cpu]" (or [gpu])'
            ) from e
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Memory is returned between clips of different batch sizes rather than kept for the largest.
        options.enable_mem_pattern = False
        try:
            self._session: Any = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime's own exceptions share no public base
            raise BuildError(f"ONNX Runtime cannot load {model.name}: {str(e).splitlines()[0]}") from e
        self.name = f"onnxruntime {onnxruntime.__version__} cpu"
        self._input = self._session.get_inputs()[0].name
        self._outputs = [o.name for o in self._session.get_outputs()]

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one batch.

        Args:
            batch: (B, ...) in the dtype and shape of the graph's input.

        Returns:
            float32 arrays (B, ...) by output name.
        """
        results = self._session.run(self._outputs, {self._input: batch})
        return dict(zip(self._outputs, results, strict=True))

    def run_in_batches(self, clips: npt.NDArray[Any], size: int) -> dict[str, npt.NDArray[np.float32]]:
        """Run N clips, ``size`` at a time, and join the results."""
        parts = [self.run(clips[i : i + size]) for i in range(0, len(clips), size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

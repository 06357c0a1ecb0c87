"""The runtime must work on machines that have neither torch nor transformers."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def run(code: str) -> None:
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    run(
        """
        import sys
        import vivit_export.runtime as runtime
        heavy = {"av", "numpy", "PIL", "torch", "transformers", "onnx", "onnxruntime"} & set(sys.modules)
        assert not heavy, heavy
        assert {"Preprocessor", "find_clips", "read_clip"} <= set(dir(runtime))
        runtime.Preprocessor, runtime.clip_indices
        assert "av" not in sys.modules
        for name in runtime.__all__:
            assert getattr(runtime, name).__name__ == name
        try:
            runtime.nonsense
        except AttributeError as e:
            assert "nonsense" in str(e)
        else:
            raise AssertionError("an unknown name must fail")
        """
    )


def test_preprocessing_and_reading_work_without_torch() -> None:
    run(
        """
        import sys
        for name in ("torch", "torchvision", "transformers", "vivit_export.export"):
            sys.modules[name] = None  # any import of it now fails
        import numpy as np
        from vivit_export.contract import Clip, Preprocess
        from vivit_export.errors import ClipError
        from vivit_export.runtime import Preprocessor, find_clips, read_clip
        pre = Preprocessor(Clip(2, 16, 16, (1, 8, 8)), Preprocess(shortest_edge=20, crop_size=(16, 16)))
        assert pre(np.zeros((2, 30, 40, 3), np.uint8)).shape == (1, 2, 3, 16, 16)
        try:
            find_clips("/nowhere/at/all")
        except ClipError:
            pass
        """
    )

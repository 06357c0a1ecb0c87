"""Sessions in a process of their own: without torch and transformers, and what Ctrl-C finds after they closed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from bundles import Bundles, need


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_video_is_recognized_without_torch(bundles: Bundles) -> None:
    need("onnxruntime")
    code = f"""
    import sys
    for name in ("torch", "transformers", "onnxscript", "onnx_ir", "vivit_export.export"):
        sys.modules[name] = None  # any import of it now fails
    import vivit_export as ve
    from vivit_export import demo
    with ve.open_session({str(bundles.demo().path)!r}, prefer="onnxruntime-cpu") as session:
        frames = ve.runtime.read_clip(demo.clips_path() / "up_240x426_30fps.mp4", session.contract)
        print(session(frames).top(1)[0][0])
    """
    assert run(code) == "up"


def test_opening_loads_one_engine_alone(bundles: Bundles) -> None:
    need("onnxruntime", "openvino")
    code = f"""
    import sys
    import vivit_export as ve
    assert "numpy" not in sys.modules
    ve.open_session({str(bundles.demo().path)!r}, prefer="onnxruntime-cpu")
    heavy = {{"torch", "openvino", "tensorrt", "tensorrt_rtx", "cuda", "av"}} & set(sys.modules)
    assert not heavy, heavy
    """
    run(code)


@pytest.mark.parametrize("engine", ["onnxruntime-cpu", "openvino"])
def test_ctrl_c_still_arrives_once_two_sessions_have_closed(bundles: Bundles, engine: str) -> None:
    """In the order they opened: OpenVINO left the signal a stack that was no longer there, and the process crashed."""
    need(engine.removesuffix("-cpu"))
    code = f"""
    import gc
    import signal
    import vivit_export as ve
    first, second = (ve.open_session({str(bundles.demo().path)!r}, prefer={engine!r}) for _ in range(2))
    for session in (first, second):
        session.close()
        gc.collect()
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("arrived")
    """
    assert run(code) == "arrived"

"""``bench`` for real: engines and PyTorch in turns, wrong answers without a speed, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from bundles import Bundles, need
from damage import damage

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.demo import clips_path
from vivit_export.errors import ClipError, EnvironmentFault, InputError, UsageError
from vivit_export.export.bench import bench

pytestmark = [pytest.mark.needs_onnxruntime, pytest.mark.usefixtures("forked_workers")]
LEFT = clips_path() / "left_320x240_25fps.mp4"


@pytest.fixture(scope="module")
def bundle(bundles: Bundles) -> Bundle:
    return bundles.demo(check=True, num_clips=3, precision="fp32")


def test_engines_are_timed_in_processes_of_their_own(bundle: Bundle) -> None:
    need("openvino")
    report = bench(bundle, batches=(1, 2), rounds=2, warmup=1, video=LEFT)
    told = report.to_json()
    json.dumps(told)
    assert list(told["contenders"]) == ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu", "openvino"]
    assert "the bundle has no TensorRT engine" in told["contenders"]["tensorrt"]["error"]
    assert told["baseline"] == "onnxruntime-cpu" and not told["partial"]
    for name in ("onnxruntime-cpu", "openvino"):
        contender = told["contenders"][name]
        assert set(contender["batches"]) == {"1", "2"}
        assert all(f["rounds"] == 2 and f["p99_ms"] >= f["p50_ms"] > 0 for f in contender["batches"].values())
        assert list(contender["steps_seconds"]) == ["decode", "preprocess", "compute"]
        assert 20e6 < contender["peak_bytes"] < 2e9


def test_eager_pytorch_is_what_engines_are_compared_with(bundle: Bundle) -> None:
    report = bench(bundle, engines="onnxruntime-cpu", against=["sdpa", "eager-bf16"], rounds=1, warmup=0, batches=1)
    told = report.to_json()["contenders"]
    assert list(told) == ["pytorch sdpa", "pytorch eager-bf16", "onnxruntime-cpu"]
    assert told["pytorch eager-bf16"]["engine"].startswith("PyTorch 2.")
    assert all(contender["batches"]["1"]["rounds"] == 1 for contender in told.values())
    assert report.baseline is not None and report.baseline.name == "pytorch sdpa"


def test_a_wrong_answer_has_no_speed(bundle: Bundle, bundles: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    damage(folder, "layers.1.mlp.fc2.weight", 3)
    wrong = read_bundle(folder)
    said = r"nothing could be timed here: .* beyond its drift gate \(.*max .*find out why, or pass anyway"
    with pytest.raises(EnvironmentFault, match=said):
        bench(wrong, engines=["onnxruntime-cpu"], rounds=1)
    with pytest.raises(EnvironmentFault, match="no golden clips to check against"):
        bench(bundles.demo(), engines=["onnxruntime-cpu"], rounds=1)
    timed = bench(wrong, engines=["onnxruntime-cpu"], rounds=1, warmup=0, anyway=True)
    assert timed.contenders[0].seconds.keys() == {1}


def test_what_cannot_run_says_why(bundle: Bundle, bundles: Bundles, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"nothing could be timed here: tensorrt: .*no TensorRT engine"):
        bench(bundle, engines=["tensorrt"])
    with pytest.raises(InputError, match="pytorch sdpa: none/at/all does not exist"):
        bench(bundle, against=["sdpa"], engines=["tensorrt"], checkpoint="none/at/all")
    with pytest.raises(InputError, match=r"^pytorch sdpa cannot be timed: none/at/all does not exist"):
        bench(bundle, against=["sdpa"], engines=["onnxruntime-cpu"], checkpoint="none/at/all")
    with pytest.raises(EnvironmentFault, match=r"^tensorrt cannot be timed: .*no TensorRT engine"):
        bench(bundle, engines=["onnxruntime-cpu", "tensorrt"])
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(ClipError, match="is a text file; give a video file"):
        bench(bundle, engines=["onnxruntime-cpu"], rounds=1, warmup=0, video=text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"against": ["jax"]}, "'jax' is not eager, sdpa or compile"),
        ({"against": ["sdpa-int8"]}, "'sdpa-int8' is not eager"),
        ({"engines": ["fast"]}, "engine 'fast' is unknown"),
        ({"rounds": 0}, "rounds=0"),
        ({"warmup": -1}, "warmup=-1"),
        ({"batches": (0,)}, "must be at least 1"),
    ],
)
def test_nonsense_is_refused(bundle: Bundle, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bench(bundle, **options)


@pytest.mark.needs_gpu
def test_pytorch_on_a_gpu_tells_computing_and_memory(bundle: Bundle) -> None:
    kinds = ["eager", "sdpa-fp16", "compile-bf16"]
    told = bench(bundle, engines=["onnxruntime-cpu"], against=kinds, device="cuda", rounds=2, warmup=1).to_json()
    for kind in kinds:
        contender = told["contenders"][f"pytorch {kind}"]
        figures = contender["batches"]["1"]
        assert 0 < figures["compute_ms"] < figures["p50_ms"]
        assert contender["gpu_bytes"] > contender["gpu_tensor_bytes"] > 1e6


def test_eager_pytorch_runs_where_the_engines_do(bundle: Bundle) -> None:
    need("torch")
    import torch

    told = bench(bundle, engines=["onnxruntime-cpu"], against=["sdpa"], device="cpu", rounds=1, warmup=0).to_json()
    assert ", CPU, " in told["contenders"]["pytorch sdpa"]["engine"]
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentFault, match=r"pytorch sdpa: PyTorch .* cannot use cuda here; check nvidia-smi"):
            bench(bundle, engines=["onnxruntime-cuda"], against=["sdpa"], device="cuda", rounds=1)

"""Programs that call us change what their own code computes with: results do not depend on it, and it stays."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from bundles import Bundles

import vivit_export as ve
from vivit_export.bundle import Bundle
from vivit_export.export.undisturbed import undisturbed

OPTIONS: dict[str, Any] = {"targets": ("onnx",), "precision": "fp16"}


@contextmanager
def setting(read: Callable[[], Any], write: Callable[[Any], Any], value: Any) -> Iterator[None]:
    before = read()
    write(value)
    try:
        yield
        assert read() == value
    finally:
        write(before)


def cpu_products() -> Any:
    return torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]


def set_cpu_products(value: str) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = value  # type: ignore[attr-defined]


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: setting(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "bfloat16": lambda: setting(torch.get_default_dtype, torch.set_default_dtype, torch.bfloat16),
    "device": lambda: torch.device("meta"),  # as "cuda" would be
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "medium": lambda: setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"),
    "new way": lambda: setting(cpu_products, set_cpu_products, "bf16"),
    "deterministic": lambda: setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "numpy": lambda: np.errstate(all="raise"),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return ve.export_model("demo", tmp_path_factory.mktemp("plain") / "demo", **OPTIONS)


def bytes_of(bundle: Bundle) -> list[bytes]:
    return [(bundle.path / name).read_bytes() for name in ("model.onnx", "golden.safetensors")]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.field_case("pytorch 72494", "pytorch 158658", "perses 184", "scikit-optimize 903")
def test_an_export_gives_the_same_bytes(expected: Bundle, tmp_path: Path, state: str, traced_anew: None) -> None:
    with STATES[state]():
        found = ve.export_model("demo", tmp_path / "demo", **OPTIONS)
    assert bytes_of(found) == bytes_of(expected)


@pytest.mark.parametrize("state", ["autocast", "numpy", "float64"])
def test_a_check_gives_the_same_figures(expected: Bundle, state: str) -> None:
    plain = ve.check(expected, against="eager")
    with STATES[state]():
        found = ve.check(expected, against="eager")
        assert ve.check(expected).passed
    assert found == plain


@pytest.mark.needs_onnxruntime
def test_predictions_do_not_raise_at_an_underflow(bundles: Bundles) -> None:
    from vivit_export import demo

    with np.errstate(all="raise"), ve.open_session(bundles.demo()) as session:
        videos = sorted(demo.clips_path().glob("*.mp4"))[:2]
        for result in ve.runtime.predict_videos(session, videos):
            assert not isinstance(result, ve.runtime.VideoFault)
            assert result.prediction.probabilities.sum() == pytest.approx(1)


@pytest.mark.field_case("ml-agents 4659", "ultralytics 24092")
def test_jobs_of_several_threads_take_turns_and_leave_all_as_it_was(tmp_path: Path, traced_anew: None) -> None:
    def state() -> list[Any]:
        return [torch.backends.mkldnn.enabled, transformers.logging.get_verbosity(), torch.get_default_dtype()]

    before, found = state(), list[bytes]()

    def export(name: str) -> None:
        found.append(ve.export_model("demo", tmp_path / name, check=False, **OPTIONS).model.read_bytes())

    threads = [threading.Thread(target=export, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1]
    assert state() == before


def test_one_job_may_call_another() -> None:
    inner = undisturbed(lambda: np.geterr()["under"])
    with np.errstate(under="raise"):
        assert undisturbed(inner)() == "ignore"
        assert np.geterr()["under"] == "raise"


@pytest.mark.field_case("lmdeploy 2258")
def test_a_folder_that_is_gone_is_named_before_it_ends_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    call = "import vivit_export as ve; ve.export_model('demo', '" + str(tmp_path / "out") + "')"
    command = f'cd {folder} && rmdir {folder} && {sys.executable} -c "{call}"'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert "EnvironmentFault: the current folder was deleted, and PyTorch needs one; cd to another" in done.stderr
    assert not (tmp_path / "out").exists()

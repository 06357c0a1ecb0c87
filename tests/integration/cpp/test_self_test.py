"""The self-test of a C++ session: the clip, the limits, the sentences and the care with the cache are Python's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bundles import Bundles
from cpp_project import Cpp
from empty_cache import cache
from safetensors.numpy import load_file, save_file
from stand_in_engine import damaged

import vivit_export as ve
from vivit_export.bundle import write_manifest
from vivit_export.bundle.reading import read_manifest
from vivit_export.deploy.cpp.deploy import deploy_cpp
from vivit_export.errors import VivitExportError
from vivit_export.runtime.session.device import cpu

__all__ = ["cache"]
pytestmark = pytest.mark.needs_onnxruntime


@pytest.fixture(scope="module")
def good(bundles: Bundles) -> Path:
    return bundles.demo(check=True, num_clips=3).path


def rewritten(folder: Path) -> Path:
    write_manifest(folder, read_manifest(folder).content)
    return folder


@pytest.fixture
def wrong(good: Path, tmp_path: Path) -> Path:
    """A bundle that computes wrongly in one block."""
    folder = Path(shutil.copytree(good, tmp_path / "wrong"))
    (folder / "model.onnx").write_bytes(damaged((folder / "model.onnx").read_bytes()))
    return rewritten(folder)


def opened(cpp: Cpp, *folders: Path, **options: Any) -> list[Any]:
    requests = [
        {"do": "self_test", "bundle": str(folder), "engine": "onnxruntime-cpu", **options} for folder in folders
    ]
    return cpp.ask(requests, "avx2")


def pythons_sentence(folder: Path) -> str:
    """What Python says of the same bundle, without what it runs on."""
    with pytest.raises(VivitExportError) as e:
        ve.open_session(folder, "onnxruntime-cpu")
    return re.sub(r"^ONNX Runtime .*?(?= computes)", "", str(e.value))


def test_it_runs_once_on_a_device(cpp: Cpp, good: Path, cache: Path) -> None:
    first, second = opened(cpp, good, good)
    assert first["self_test"].startswith("passed: clear_flips 0, cosine 1, embedding_cosine 1, max ")
    assert second["self_test"] == "not needed: passed on this device before"
    (remembered,) = cache.iterdir()
    assert remembered.stat().st_size == 0 and remembered.stat().st_mode & 0o777 == 0o600
    # What Python computes otherwise, it tests by itself.
    with ve.open_session(good, "onnxruntime-cpu") as session:
        assert session.self_test.startswith("passed: ")
    remembered.unlink()
    remembered.mkdir()  # of somebody else
    (again,) = opened(cpp, good)
    assert again["self_test"].startswith("passed: ")


def test_an_engine_that_computes_wrongly_is_refused_with_pythons_sentence(
    cpp: Cpp, wrong: Path, cache: Path, tmp_path: Path
) -> None:
    (answer,) = opened(cpp, wrong)
    assert answer["code"] == 5
    found = re.sub(r"^ONNX Runtime .*?(?= computes)", "", answer["error"])
    assert f" computes wrongly on {cpu()}: for the first golden clip of {wrong}, " in found
    assert figures_of(found)[0] == figures_of(pythons_sentence(wrong))[0]
    for ours, theirs in zip(figures_of(found)[1], figures_of(pythons_sentence(wrong))[1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert not cache.exists()
    (answer,) = opened(cpp, wrong, self_test=False)
    assert answer["self_test"] == "left out"
    run = list(map(str, (cpp.vivit_run, wrong, cpp.video, "--repeat", "1", "--self-test")))
    refused, told = (subprocess.run([*run, how], capture_output=True, text=True, check=False) for how in ("yes", "no"))
    assert refused.returncode == 5 and "computes wrongly" in refused.stderr
    assert told.returncode == 0


def figures_of(sentence: str) -> tuple[str, list[float]]:
    """A sentence without the figures that were measured, and these: two builds of ONNX Runtime round otherwise."""
    measured = re.compile(r"(?<= )[\d.e-]+(?= is (?:above|below) )")
    return measured.sub("…", sentence), [float(figure) for figure in measured.findall(sentence)]


@pytest.mark.parametrize("limit", ["kl", "max_abs", "cosine", "embedding_cosine"])
def test_every_figure_is_pythons(cpp: Cpp, wrong: Path, limit: str) -> None:
    path = wrong / "bundle.json"
    manifest = json.loads(path.read_text())
    manifest["checks"]["gate"] = {limit: 0.9999999 if limit.endswith("cosine") else 0}
    path.write_text(json.dumps(manifest))
    (answer,) = opened(cpp, wrong)
    sentence = pythons_sentence(wrong)
    mine = figures_of(answer["error"])[1]
    assert mine == pytest.approx(figures_of(sentence)[1], rel=1e-3) and len(mine) == 1


def test_a_deployed_bundle_and_one_without_golden_clips(cpp: Cpp, bundles: Bundles, good: Path, tmp_path: Path) -> None:
    deploy_cpp(good, tmp_path / "app")
    deployed, without = opened(cpp, tmp_path / "app/bundle", bundles.demo().path)
    assert deployed["self_test"].startswith("passed: ")
    assert without["self_test"] == "not run: the bundle has no golden clips"


def _without_logits(path: Path) -> None:
    arrays = load_file(path)
    del arrays["logits"]
    save_file(arrays, path)


def _other_shape(path: Path) -> None:
    arrays = load_file(path)
    save_file({**arrays, "frames": arrays["frames"][:, :4].copy()}, path)


def _fewer_results(path: Path) -> None:
    arrays = load_file(path)
    save_file({**arrays, "logits": arrays["logits"][:2].copy()}, path)


def _not_finite(path: Path) -> None:
    arrays = load_file(path)
    arrays["logits"][2, 0] = float("nan")
    save_file(arrays, path)


@pytest.mark.parametrize("change", [_without_logits, _other_shape, _fewer_results, _not_finite])
def test_golden_clips_that_are_none_are_refused_with_pythons_sentence(
    cpp: Cpp, good: Path, tmp_path: Path, change: Any
) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "bundle"))
    change(folder / "golden.safetensors")
    (answer,) = opened(cpp, rewritten(folder))
    assert (answer["error"], answer["code"]) == (pythons_sentence(folder), 3)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff" * 8,
        (1 << 19).to_bytes(8, "little") + b"{",
        (2).to_bytes(8, "little") + b"[]",
        (60).to_bytes(8, "little") + b'{"frames": {"dtype": "U8", "shape": [-1], "data_offsets": 3}}'[:60],
    ],
)
def test_headers_that_lie_are_refused(cpp: Cpp, good: Path, tmp_path: Path, head: bytes) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "bundle"))
    (folder / "golden.safetensors").write_bytes(head)
    (answer,) = opened(cpp, rewritten(folder))
    assert answer["code"] == 3
    assert answer["error"].startswith(str(folder / "golden.safetensors"))


def test_clips_that_are_overwritten_after_the_bundle_was_verified_are_refused(
    cpp: Cpp, good: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "bundle"))
    answers = opened(cpp, folder, flip="golden.safetensors")
    assert answers[0]["code"] == 3

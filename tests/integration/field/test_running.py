"""Running a model as in the field cases (docs/field-cases.md): other folders, forks, one core, names with a dash."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bundles import Bundles, need, random_crops
from command_line import Cli, error_of
from console import Exported

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.demo import clips_path
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

LEFT = next(clips_path().glob("left*"))
pytestmark = pytest.mark.needs_onnxruntime


@pytest.mark.field_case("moviepy 2160")
def test_a_video_whose_name_begins_with_a_dash(demo_export: Exported, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "home/-dance.mp4").write_bytes(LEFT.read_bytes())
    assert "No such option" in error_of(cli("predict", demo_export.bundle, "-dance.mp4", code=2))
    for arguments in (("--", "-dance.mp4"), ("./-dance.mp4",)):
        found = json.loads(cli("predict", demo_export.bundle, "--json", *arguments).stdout)
        assert found["top"][0]["label"] == "left"


@pytest.mark.field_case("onnxruntime 6696")
def test_weights_beside_the_graph_are_found_from_anywhere(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = ve.read_bundle(bundles.copy(tmp_path / "moved"))
    crops = random_crops(bundle, 1)
    with ve.open_session(bundles.demo(), prefer="onnxruntime-cpu") as session:
        expected = session.infer(crops)
    monkeypatch.chdir("/")
    with ve.open_session(tmp_path / "moved", prefer="onnxruntime-cpu") as session:
        np.testing.assert_array_equal(session.infer(crops), expected)


_FORKED: ve.Session | None = None


def _logits(seed: int) -> npt.NDArray[np.float32]:
    assert _FORKED is not None
    clips = np.random.default_rng(seed).integers(0, 256, (16, 8, 64, 64, 3), dtype=np.uint8)
    return _FORKED.infer(clips)


@pytest.fixture
def session(bundles: Bundles) -> Iterator[ve.Session]:
    global _FORKED
    with ve.open_session(bundles.demo(), prefer="onnxruntime-cpu") as opened:
        _FORKED = opened
        yield opened
    _FORKED = None


@pytest.mark.field_case("onnxruntime 5093", "onnxruntime 9800")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_that_are_forked_from_an_open_session(session: ve.Session) -> None:
    expected = [_logits(seed) for seed in range(3)]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map_async(_logits, range(3), chunksize=1).get(60)
    for mine, forked in zip(expected, found, strict=True):
        np.testing.assert_allclose(forked, mine, rtol=0, atol=1e-5)


ONE_CORE = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
import vivit_export as ve
with ve.open_session(sys.argv[1], prefer="onnxruntime-cpu") as session:
    np.save(sys.argv[2], session.infer(np.load(sys.argv[3])))
"""


@pytest.mark.field_case("onnxruntime 8313")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a process fewer cores")
def test_a_process_that_may_use_one_core(bundles: Bundles, tmp_path: Path, session: ve.Session) -> None:
    crops = random_crops(bundles.demo(), 2)
    np.save(tmp_path / "crops.npy", crops)
    files = [str(tmp_path / "logits.npy"), str(tmp_path / "crops.npy")]
    command = [sys.executable, "-W", "error", "-c", ONE_CORE, str(bundles.demo().path), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == ("", "")
    np.testing.assert_allclose(np.load(files[0]), session.infer(crops), rtol=0, atol=1e-5)


@pytest.mark.field_case("onnxruntime 11576", "onnxruntime 12638")
def test_int8_is_the_same_however_it_is_optimized(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ONNX Runtime not at all, a little, in full, and by OpenVINO: apart by less than INT8 itself costs."""
    need("openvino")
    import onnxruntime

    bundle = bundles.demo(precision="int8", calibration=CalibrationOptions(num_clips=32))
    crops = random_crops(bundle, 4)
    with ve.open_session(bundle, prefer="openvino") as session:
        found = [session.infer(crops)]
    levels = onnxruntime.GraphOptimizationLevel
    real = onnxruntime.InferenceSession
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_ALL):

        def make(model: object, options: object, level: object = level, **more: object) -> object:
            options.graph_optimization_level = level  # type: ignore[attr-defined]
            return real(model, options, **more)

        monkeypatch.setattr(onnxruntime, "InferenceSession", make)
        found.append(OnnxRuntimeSession(bundle.model).run(crops)["logits"])
    assert np.ptp(np.stack(found), axis=0).max() < 3e-3 * np.ptp(found[0])

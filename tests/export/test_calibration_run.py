"""``vivit calibrate`` writes ranges that an export takes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from checkpoints import Checkpoints

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.errors import ClipError, OutputError, UsageError
from vivit_export.export.calibration_run import calibrate_model
from vivit_export.export.options import ExportOptions
from vivit_export.precision import Precision
from vivit_export.records import to_json

pytestmark = pytest.mark.needs_onnxruntime

FEW = CalibrationOptions(num_clips=32)


def options(**fields: Any) -> ExportOptions:
    return ExportOptions(**{"precision": "int8", "calibration": FEW, **fields})


def test_ranges_with_sensitivities_go_to_a_file_that_an_export_takes(tmp_path: Path) -> None:
    found = calibrate_model("demo", tmp_path / "ranges.json", options=options(), sensitivity=True)
    assert len(found.layers) == 16
    assert [one.alone is not None for one in found.sensitivity] == [True] * 12 + [False] * 4
    assert json.loads((tmp_path / "ranges.json").read_text())["sensitivity"][0] == to_json(found.sensitivity[0])
    bundle = ve.export_model(
        "demo",
        tmp_path / "out",
        precision="int8",
        targets=("onnx",),
        calibration=CalibrationOptions(ranges=tmp_path / "ranges.json"),
    )
    assert (bundle.path / "ranges.json").read_bytes() == (tmp_path / "ranges.json").read_bytes()


def test_from_python_nothing_needs_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    found = ve.calibrate("demo", num_clips=32, cache=cache, method="minmax")
    assert (found.precision, found.method, found.clips.used) == ("int8", "minmax", 32)
    assert list(tmp_path.iterdir()) == [cache]
    written = ve.calibrate("demo", "ranges.json", num_clips=32, cache=str(cache), method="minmax")
    assert json.loads((tmp_path / "ranges.json").read_text()) == written.to_json() == found.to_json()


def test_from_python_the_clips_are_one_place_or_several(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for data in (tmp_path / "gone", str(tmp_path / "gone"), [tmp_path, tmp_path / "gone"]):
        with pytest.raises(ClipError, match="gone does not exist; give a folder of videos"):
            ve.calibrate(checkpoints.folder(), data=data)
    with pytest.raises(UsageError, match="INT8 and FP8 need ranges calibrated on real clips"):
        ve.calibrate(checkpoints.folder(), precision="fp8")
    with pytest.raises(UsageError, match="precision=fp16 needs no calibration"):
        ve.calibrate("demo", precision="fp16")


def test_a_file_that_exists_is_replaced_by_force_only(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"ranges\.json exists; pass force"):
        calibrate_model("demo", path, options=options())
    assert path.read_text() == "mine"
    calibrate_model("demo", path, options=options(force=True))
    assert json.loads(path.read_text())["precision"] == "int8"
    with pytest.raises(OutputError, match="cannot be written: there is no such folder"):
        calibrate_model("demo", tmp_path / "nowhere" / "x.json", options=options())
    with pytest.raises(OutputError, match="is a folder, not a file that can be replaced"):
        calibrate_model("demo", tmp_path, options=options(force=True))


def test_a_pipe_is_refused_before_the_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ranges.json")
    with pytest.raises(OutputError, match=r"ranges\.json is a pipe, not a file that can be replaced"):
        calibrate_model("demo", tmp_path / "ranges.json", options=options(force=True))
    assert (tmp_path / "ranges.json").is_fifo()


def test_other_precisions_need_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="precision=fp16 needs no calibration; choose precision=int8 or precision=fp8"):
        calibrate_model("demo", tmp_path / "x.json", options=ExportOptions(Precision.FP16))

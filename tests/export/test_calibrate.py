"""From a checkpoint and clips to ranges, and to a bundle that holds what they promise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Checkpoints
from made_clips import blurred
from safetensors.numpy import load_file, save_file

import vivit_export as ve
from vivit_export import demo
from vivit_export.bundle.manifest import ClipsRecord
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.choices import CalibrationMethod
from vivit_export.cli.export import calibrate
from vivit_export.errors import CalibrationError, ClipError, DriftError, UsageError, VivitExportError
from vivit_export.export import calibrate as calibrate_module
from vivit_export.export.calibrate import graph_sha256, motion_clips, obtain_ranges
from vivit_export.export.graph.build import rewrite_graph
from vivit_export.export.options import ExportOptions
from vivit_export.files import write_json
from vivit_export.precision import Precision
from vivit_export.progress import Silent

pytestmark = pytest.mark.needs_onnxruntime

CropsFile = Callable[[int], Path]


@pytest.fixture
def crops_file(tmp_path: Path) -> CropsFile:
    """Clips of the tiny checkpoints."""

    def write(count: int) -> Path:
        path = tmp_path / f"{count}.safetensors"
        save_file({"frames": blurred(np.random.default_rng(0), count, (4, 16, 16, 3))}, path)
        return path

    return write


def export(folder: Path, target: Path, data: Path | None, **options: Any) -> ve.Bundle:
    calibration = options.pop("calibration", None) or CalibrationOptions(data=(data,) if data else ())
    return ve.export_model(
        str(folder), target, **{"precision": "int8", "targets": ("onnx",), "calibration": calibration, **options}
    )


@pytest.mark.parametrize("precision", ["int8", "fp8"])
@pytest.mark.parametrize("mode", ["crops", "pixels"])
def test_a_bundle_says_how_each_layer_is_quantized(
    checkpoints: Checkpoints, crops_file: CropsFile, tmp_path: Path, precision: str, mode: str
) -> None:
    data = crops_file(40)
    bundle = export(checkpoints.folder(), tmp_path / "out", data, precision=precision, input_mode=mode, num_clips=2)
    assert {"ranges.json", "model.onnx"} <= set(bundle.manifest.files)
    told = bundle.manifest.precision
    assert told.name == precision
    assert told.quantization is not None
    assert told.quantization.clips == ClipsRecord(data.name, 40)
    layers = told.quantization.layers
    assert list(layers) == [f"layers.0.{n}" for n in ("attention.o_proj", "attention.qkv", "mlp.fc1", "mlp.fc2")]
    assert {layer.type for layer in layers.values()} == {"int8" if precision == "int8" else "float8_e4m3fn"}
    stored = json.loads((bundle.path / "ranges.json").read_text())
    assert {name: layer["amax"] for name, layer in stored["layers"].items()} == {
        name: layer.amax for name, layer in layers.items()
    }
    assert bundle.manifest.checks is not None
    runs = bundle.manifest.checks.runs
    assert runs[0].engine == "eager fp16"
    assert f"{precision} rounding emulated" in runs[-1].engine


def test_the_demo_calibrates_on_its_own_motions(tmp_path: Path) -> None:
    notes: list[str] = []

    class Noted(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    calibration = CalibrationOptions(num_clips=32)
    bundle = export(Path("demo"), tmp_path / "out", None, calibration=calibration, progress=Noted())
    quantization, checks = bundle.manifest.precision.quantization, bundle.manifest.checks
    assert quantization is not None and checks is not None
    clips = quantization.clips
    assert (clips.source, clips.used) == ("motion clips rendered for the demo", 32)
    assert "32 calibration clips are few: the ranges settle with 256 or more" in notes
    assert all(run.drift is not None and run.drift.top1 == 1 for run in checks.runs)


def test_rendered_clips_are_not_those_of_training_or_evaluation() -> None:
    low, high = calibrate_module._DEMO_SEED, calibrate_module._DEMO_SEED + calibrate_module._DEMO_CLIPS
    assert low >= 10_000 and high <= 1_000_000  # tools/train_demo.py evaluates below and trains from 2**32; tests above


def test_motion_clips_have_the_shape_of_the_contract(checkpoints: Checkpoints) -> None:
    class Tiny:
        clip, preprocess = checkpoints.load().clip, checkpoints.load().preprocess

    found = motion_clips(Tiny, range(10))  # type: ignore[arg-type]
    assert found.shape == (10, 4, 16, 16, 3)
    assert len({clip.tobytes() for clip in found}) == 10


# --- ranges that exist already -----------------------------------------------------------------


def test_ranges_of_a_bundle_make_the_same_bundle_without_clips(
    checkpoints: Checkpoints, crops_file: CropsFile, tmp_path: Path
) -> None:
    first = export(checkpoints.folder(), tmp_path / "first", crops_file(40), num_clips=2)
    shutil.copyfile(first.path / "ranges.json", tmp_path / "ranges.json")
    again = export(
        checkpoints.folder(),
        tmp_path / "again",
        None,
        num_clips=2,
        calibration=CalibrationOptions(ranges=tmp_path / "ranges.json"),
    )
    assert (again.path / "bundle.json").read_bytes() == (first.path / "bundle.json").read_bytes()


@pytest.mark.parametrize(
    ("fields", "options", "part"),
    [
        ({"num_hidden_layers": 2}, {}, "model and weights"),
        ({}, {"skip_rewrites": ("query-bias",)}, "model"),
    ],
)
def test_ranges_of_another_graph_are_refused(
    checkpoints: Checkpoints, crops_file: CropsFile, tmp_path: Path, fields: Any, options: Any, part: str
) -> None:
    first = export(checkpoints.folder(), tmp_path / "first", crops_file(40), check=False)
    calibration = CalibrationOptions(ranges=first.path / "ranges.json")
    with pytest.raises(CalibrationError, match=rf"was calibrated for another {part}; calibrate this one"):
        export(checkpoints.folder(**fields), tmp_path / "other", None, check=False, calibration=calibration, **options)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"stride": 2}, " --sampling stride --stride 2"),
        ({"short": "repeat"}, " --short repeat"),
        ({"sampling": "stride", "stride": 3, "views": (4, 3)}, " --sampling stride --stride 3 --views 4x3"),
        ({"skip_rewrites": ("query-bias", "key-bias")}, " --no-rewrite query-bias --no-rewrite key-bias"),
    ],
    ids=str,
)
def test_the_command_that_is_advised_makes_ranges_that_fit(
    checkpoints: Checkpoints, crops_file: CropsFile, tmp_path: Path, options: Any, flags: str
) -> None:
    checkpoint, data = checkpoints.load(), CalibrationOptions((crops_file(40),), method="minmax")

    def ranges(calibration: CalibrationOptions, **given: Any) -> Any:
        asked = ExportOptions(Precision.INT8, calibration=calibration, **given)
        rewritten = rewrite_graph(checkpoint, ("logits",), Precision.INT8, asked.skip_rewrites)
        clip, skipped = asked.sampled(checkpoint.clip), asked.skip_rewrites
        return obtain_ranges(checkpoint, rewritten, clip, Precision.INT8, calibration, Silent(), skip_rewrites=skipped)

    path = tmp_path / "ranges.json"
    write_json(path, ranges(data).to_json())
    with pytest.raises(CalibrationError) as caught:
        ranges(CalibrationOptions(ranges=path), **options)
    command = f"vivit calibrate MODEL --int8 --calibration-data DIR{flags}"
    assert str(caught.value).endswith(f"; calibrate this one: {command}")
    parsed = calibrate.make_context("calibrate", command.split()[2:]).params
    assert {name: parsed[name] for name in options} == options
    write_json(path, ranges(data, **options).to_json())
    assert ranges(CalibrationOptions(ranges=path), **options).layers


@pytest.mark.usefixtures("traced_anew")
def test_the_hash_does_not_depend_on_outputs_or_on_tracing_again(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints.load()
    hashes = [
        graph_sha256(rewrite_graph(checkpoint, outputs, Precision.INT8).model, checkpoint.anatomy)
        for outputs in (("logits",), ("embedding",))
    ]
    assert hashes[0] == hashes[1]
    assert hashes[0] != graph_sha256(rewrite_graph(checkpoint, ("logits",), Precision.FP16).model, checkpoint.anatomy)


def test_the_cache_serves_another_method(
    checkpoints: Checkpoints, crops_file: CropsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoints.load()
    rewritten = rewrite_graph(checkpoint, ("logits",), Precision.INT8)
    data = crops_file(40)

    def ranges(method: CalibrationMethod, precision: Precision = Precision.INT8) -> Any:
        options = CalibrationOptions((data,), method=method, cache=tmp_path / "kept")
        return obtain_ranges(checkpoint, rewritten, checkpoint.clip, precision, options, Silent())

    first = ranges("minmax")
    monkeypatch.setattr("vivit_export.calibration.collect.OnnxRuntimeSession", None)
    assert ranges("percentile").layers != first.layers
    assert (
        ranges("minmax", Precision.FP8).layers["layers.0.mlp.fc1"].largest == first.layers["layers.0.mlp.fc1"].largest
    )


# --- layers that are kept ----------------------------------------------------------------------


def test_a_regular_expression_keeps_layers(checkpoints: Checkpoints, crops_file: CropsFile, tmp_path: Path) -> None:
    bundle = export(checkpoints.folder(), tmp_path / "out", crops_file(40), keep_fp16=r"fc2$|qkv", check=False)
    quantization = bundle.manifest.precision.quantization
    assert quantization is not None
    types = {name: layer.type for name, layer in quantization.layers.items()}
    assert types == {
        "layers.0.attention.qkv": "float16",
        "layers.0.attention.o_proj": "int8",
        "layers.0.mlp.fc1": "int8",
        "layers.0.mlp.fc2": "float16",
    }


@pytest.mark.parametrize("pattern", ["nonsense", "."])
def test_an_expression_that_keeps_none_or_all_is_refused(
    checkpoints: Checkpoints, crops_file: CropsFile, tmp_path: Path, pattern: str
) -> None:
    with pytest.raises(UsageError, match=r"matches \d of 4 layers; they are named like layers\.0\.attention\.qkv"):
        export(checkpoints.folder(), tmp_path / "out", crops_file(40), keep_fp16=pattern, check=False)
    assert not (tmp_path / "out").exists()


# --- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, UsageError, "INT8 and FP8 need ranges calibrated on real clips: name a folder"),
        ({"data": (Path("nowhere"),)}, ClipError, "nowhere does not exist"),
        ({"data": (demo.clips_path(),)}, ClipError, r"8 usable calibration clips are too few: at least 32 are needed"),
        (
            {"ranges": Path("nowhere.json")},
            CalibrationError,
            r"nowhere\.json does not exist; make it with vivit calibrate, or take the ranges\.json of a bundle",
        ),
    ],
)
def test_no_clips_no_quantization(
    checkpoints: Checkpoints, tmp_path: Path, options: Any, error: type[VivitExportError], said: str
) -> None:
    with pytest.raises(error, match=said):
        export(checkpoints.folder(), tmp_path / "out", None, calibration=CalibrationOptions(**options))
    assert not list(tmp_path.iterdir())


def test_drift_beyond_the_gate_leaves_nothing_but_its_report(
    checkpoints: Checkpoints, crops_file: CropsFile, tmp_path: Path
) -> None:
    data = crops_file(40)
    with pytest.raises(DriftError, match="drift beyond the gate in onnxruntime"):
        export(checkpoints.folder(), tmp_path / "out", data, gate="max=1e-6", num_clips=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [data.name, "out.failed"]


def test_a_bundles_golden_clips_can_be_calibrated_on(tmp_path: Path, checkpoints: Checkpoints) -> None:
    """Where they are enough."""
    bundle = ve.export_model(str(checkpoints.folder()), tmp_path / "fp32", targets=("onnx",), num_clips=2)
    frames = load_file(bundle.golden)["frames"]  # type: ignore[arg-type]
    assert frames.shape[1:] == (4, 16, 16, 3)
    with pytest.raises(ClipError, match="2 usable calibration clips are too few"):
        export(checkpoints.folder(), tmp_path / "out", bundle.golden)

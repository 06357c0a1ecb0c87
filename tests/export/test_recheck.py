"""Checking a finished bundle again: what passes, what is found, and what needs torch."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from bundles import Bundles, move_weights_out, need
from checkpoints import Checkpoints
from damage import damage, rehash
from noted import Noted
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_file_as_tensors

import vivit_export as ve
from vivit_export.bundle import MODEL, MODEL_DATA, Bundle, read_bundle
from vivit_export.demo import checkpoint_path, clips_path
from vivit_export.errors import BundleError, CheckpointError, DriftError, UsageError
from vivit_export.export import recheck
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.recheck import assert_no_drift, check
from vivit_export.report.html import golden_pictures
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.drift.parity import compare_pixels
from vivit_export.runtime.session.session import Session

pytestmark = pytest.mark.needs_onnxruntime
PRECISIONS = ("fp32", "fp16", "bf16")
FRAMES: dict[str, Any] = {"input_mode": "frames", "frame_size": (90, 120)}
PIXELS: dict[str, Any] = {"input_mode": "pixels"}


def checked(bundles: Bundles, **options: Any) -> Bundle:
    return bundles.demo(check=True, num_clips=3, **options)


# --- golden ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, PIXELS, FRAMES, {"outputs": ("embedding",)}], ids=str)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_good_bundle_passes(bundles: Bundles, precision: str, options: dict[str, Any]) -> None:
    report = check(checked(bundles, precision=precision, **options), engine="onnxruntime-cpu")
    assert report.passed and report.failures() == []
    assert report.reference.endswith("(golden)")
    assert [run.batch for run in report.runs] == [1, 15] + [1] * (precision != "fp32")
    assert ["emulated" in run.engine for run in report.runs] == [False, False] + [True] * (precision != "fp32")
    assert all(run.gated and run.drift is not None and run.drift.nonfinite == 0 for run in report.runs)
    assert [(p.ours, p.differing) for p in report.parity] == ([] if options == PIXELS else [("the graph", 0)])


def test_the_engine_that_is_asked_for_is_checked(bundles: Bundles) -> None:
    need("openvino")
    report = check(checked(bundles, precision="fp32"), engine="openvino")
    assert {run.engine.split()[0] for run in report.runs} == {"OpenVINO"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_wrong_weight_is_found(bundles: Bundles, tmp_path: Path, precision: str) -> None:
    folder = Path(shutil.copytree(checked(bundles, precision=precision).path, tmp_path / "copy"))
    damage(folder, "layers.1.mlp.fc2.weight", 3)
    report = check(folder)
    assert not report.passed
    assert all(f.startswith("drift beyond the gate in ") for f in report.failures())
    with pytest.raises(DriftError, match=r"^drift beyond the gate in .* at batch 1: .*max .* is above "):
        assert_no_drift(folder)


def test_wrong_preprocessing_in_the_graph_is_found(bundles: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checked(bundles, precision="fp32").path, tmp_path / "copy"))
    damage(folder, "preprocess/Div_2.1", 1 + 1e-6)
    report = check(folder)
    assert report.parity[0].differing > 0
    assert report.failures() == [report.parity[0].sentence]  # a millionth: the logits stay within the gate
    assert "pixel values of the graph differ from the runtime, by at most" in report.parity[0].sentence


def test_an_altered_bundle_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checked(bundles, precision="fp32").path, tmp_path / "copy"))
    with (folder / "golden.safetensors").open("r+b") as f:
        f.seek(-1, 2)
        f.write(b"\1")
    with pytest.raises(BundleError, match=r"golden\.safetensors is not the file"):
        check(folder)


def test_a_bundle_without_golden_clips_says_what_to_do(bundles: Bundles) -> None:
    with pytest.raises(BundleError, match=r"no golden clips, as it was exported with check=False.*against=eager"):
        check(bundles.demo())


def test_golden_clips_that_lack_an_output_are_refused(bundles: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checked(bundles, precision="fp32").path, tmp_path / "copy"))
    arrays = load_file(folder / "golden.safetensors")
    save_file({name: array for name, array in arrays.items() if name != "logits"}, folder / "golden.safetensors")
    rehash(folder, "golden.safetensors")
    with pytest.raises(BundleError, match=r"golden\.safetensors lacks 'logits'; export the bundle again"):
        check(folder)


def test_limits_are_the_bundles_own_unless_told_otherwise(bundles: Bundles) -> None:
    bundle = bundles.demo(check=True, num_clips=1, precision="fp16", gate="max=0.5")
    assert check(bundle).gate.limits["max"] == 0.5
    report = check(bundle, gate="max=1e-9")
    assert report.gate.limits["max"] == 1e-9 and not report.passed
    with pytest.raises(UsageError, match="'speed' is not a metric"):
        check(bundle, gate="speed=1")


def test_fewer_clips_on_request(bundles: Bundles) -> None:
    report = check(checked(bundles, precision="fp32"), num_clips=2)
    assert len(report.names) == 2
    assert report.runs[0].drift is not None and report.runs[0].drift.num_clips == 2
    with pytest.raises(UsageError, match="num_clips=0 must be at least 1"):
        check(checked(bundles, precision="fp32"), num_clips=0)


def test_golden_needs_neither_torch_nor_transformers(bundles: Bundles) -> None:
    code = f"""
    import sys
    from importlib.machinery import PathFinder
    absent = ("torch", "transformers", "onnxscript", "onnx_ir", "polygraphy")
    find = PathFinder.find_spec
    PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in absent else find(name, *rest)
    import vivit_export as ve
    report = ve.check({str(checked(bundles, precision="fp16").path)!r})
    assert report.passed and report.runs[-1].note == "not run: the package onnx-ir is not installed here"
    ve.assert_no_drift({str(checked(bundles, precision="fp32").path)!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# --- eager -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, PIXELS, FRAMES], ids=str)
def test_against_eager_on_other_clips(bundles: Bundles, options: dict[str, Any]) -> None:
    bundle = checked(bundles, precision="fp16", **options)
    report = check(bundle, clips_path() / "up_240x426_30fps.mp4", per_block=True)
    assert report.passed
    assert report.names == ("up_240x426_30fps.mp4",)
    assert (report.runs[0].engine, report.runs[0].gated) == ("eager fp16", False)
    assert [p.reference for p in report.parity] == ["VivitImageProcessor"] + ["the runtime"] * (options != PIXELS)
    assert [block.name for block in report.blocks] == [f"layers.{i}" for i in range(4)]
    assert all(1e-5 < (block.rms or 0) < 2e-3 for block in report.blocks)
    assert report.taps is not None and report.taps.suspect is None
    assert report.runs[-1].engine == report.taps.graph
    fields = {"reference", "clips", "gate", "runs", "parity", "blocks", "taps", "view", "accuracy", "baseline"}
    assert set(report.to_json()) == fields
    json.dumps(report.to_json())


@pytest.mark.parametrize("per_block", [False, True])
def test_the_eager_model_runs_on_the_engines_device(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, per_block: bool
) -> None:
    asked: list[str | None] = []
    moved: list[torch.device] = []

    def beside(name: str | None) -> torch.device:
        asked.append(name)
        return torch.device("cuda:1")

    monkeypatch.setattr("vivit_export.export.checkpoint.device.device_beside", beside)
    monkeypatch.setattr(Checkpoint, "move", lambda _, device: moved.append(device))
    monkeypatch.setattr(Checkpoint, "framework", "PyTorch on the second GPU")
    report = check(checked(bundles), against="eager", num_clips=1, device="cpu", per_block=per_block)
    assert asked == ["cpu"] and moved == [torch.device("cuda:1")]
    assert report.reference == "eager fp32, PyTorch on the second GPU"


@pytest.mark.parametrize("is_full", [False, True])
def test_a_gpu_that_is_full_is_told(bundles: Bundles, monkeypatch: pytest.MonkeyPatch, is_full: bool) -> None:
    where = {"device": torch.device("cpu")}
    eager = Checkpoint.run_eager

    def run(self: Checkpoint, *given: Any) -> Any:
        at, where["device"] = where["device"], torch.device("cpu")
        found = eager(self, *given)
        where["device"] = where["device"] if is_full else at
        return found

    monkeypatch.setattr("vivit_export.export.checkpoint.device.device_beside", lambda _: torch.device("cuda:1"))
    monkeypatch.setattr(Checkpoint, "device", property(lambda _: where["device"]))
    monkeypatch.setattr(Checkpoint, "framework", "PyTorch")
    monkeypatch.setattr(Checkpoint, "move", lambda _, device: where.update(device=device))
    monkeypatch.setattr(Checkpoint, "run_eager", run)
    progress = Noted()
    check(checked(bundles), against="eager", num_clips=1, progress=progress)
    told = "the eager model runs on the CPU, because the memory of cuda:1 does not hold it"
    assert (told in progress.notes) is is_full


@pytest.mark.parametrize(
    "given", [{}, {"per_block": True}, {"checkpoint": "demo", "clips": clips_path(), "views": (1, 3)}]
)
def test_the_pixels_of_one_clip_are_in_memory(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """They take four times the memory of its frames: 19 MB for ViViT-B/16x2."""
    at_once = []
    to_pixels = Preprocessor.to_pixels

    def counted(self: Preprocessor, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        at_once.append(len(crops))
        return to_pixels(self, crops)

    monkeypatch.setattr(Preprocessor, "to_pixels", counted)
    check(checked(bundles), against="eager", **given)
    assert set(at_once) == {1}


def test_a_bundle_keeps_some_of_many_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, size = tmp_path / "clips", 8 * 64 * 64 * 3
    folder.mkdir()
    for number, path in enumerate(sorted(clips_path().glob("*.mp4"))[:7]):
        shutil.copy(path, folder / f"{number}.mp4")
    monkeypatch.setattr("vivit_export.bundle.golden.MOST_GOLDEN_BYTES", 3 * size + 1)
    progress = Noted()
    bundle = ve.export_model(
        "demo", tmp_path / "out", precision="fp16", targets=("onnx",), clips=folder, progress=progress
    )
    assert "golden.safetensors keeps 3 of the 7 clips, spaced evenly (0 MiB)" in progress.notes
    exported = bundle.manifest.checks
    assert exported is not None and len(exported.names) == 7
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(f"{name},0\n" for name in exported.names))
    report = check(bundle, labels=labels)
    assert report.passed and report.names == ("0.mp4", "2.mp4", "4.mp4")
    assert report.clips.videos == tuple(exported.clips.videos[row] for row in (0, 2, 4))
    assert check(bundle, num_clips=2).names == ("0.mp4", "2.mp4")
    eager = check(bundle, folder, checkpoint="demo")
    stored = load_file(bundle.path / "golden.safetensors")["logits"]
    assert report.view is not None and eager.view is not None
    margins = dict(zip(eager.names, eager.view.margins, strict=True))
    of_names = [margins[name] for name in report.names]
    assert report.view.margins == pytest.approx(of_names, rel=0.01) and len(stored) == 3  # of the range of fewer logits
    pictures = golden_pictures(bundle.path, bundle.manifest.content)
    assert list(pictures) == [0, 2, 4] == list(golden_pictures(bundle.path, bundle.manifest.content, report))


def test_a_local_checkpoint_must_be_named_and_be_the_right_one(checkpoints: Checkpoints, tmp_path: Path) -> None:
    mine, other = checkpoints.copy(tmp_path / "mine"), checkpoints.folder(num_hidden_layers=2)
    bundle = ve.export_model(str(mine), tmp_path / "out", targets=("onnx",), num_clips=1)
    with pytest.raises(UsageError, match="exported from a local folder named mine; say where it is: checkpoint"):
        check(bundle, against="eager")
    with pytest.raises(CheckpointError, match=r"is not the checkpoint that .* was exported from"):
        check(bundle, checkpoint=str(other))
    assert check(bundle, checkpoint=str(mine), num_clips=1).passed


def test_a_pickle_that_was_exported_can_be_checked_against(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """`check` has no option to allow pickles: the hash in the bundle allows that one."""
    mine = checkpoints.copy(tmp_path / "mine")
    torch.save(load_file_as_tensors(mine / "model.safetensors"), mine / "pytorch_model.bin")
    (mine / "model.safetensors").unlink()
    bundle = ve.export_model(str(mine), tmp_path / "out", targets=("onnx",), num_clips=1, allow_pickle=True)
    assert check(bundle, checkpoint=str(mine), num_clips=1).passed
    (mine / "pytorch_model.bin").write_bytes(b"another")
    with pytest.raises(CheckpointError, match=r"is not the checkpoint that .* was exported from"):
        check(bundle, checkpoint=str(mine))
    plain = ve.export_model(str(checkpoints.folder()), tmp_path / "plain", targets=("onnx",), num_clips=1)
    with pytest.raises(CheckpointError, match=r"is not the checkpoint that .* was exported from"):
        check(plain, checkpoint=str(mine))


def test_the_demo_may_lie_elsewhere(bundles: Bundles, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(checkpoint_path(), tmp_path / "demo"))
    assert check(checked(bundles, precision="fp32"), checkpoint=str(elsewhere), num_clips=1).passed


@pytest.mark.parametrize("given", [{"clips": "x"}, {"checkpoint": "demo"}, {"per_block": True}])
def test_golden_refuses_what_needs_the_eager_model(bundles: Bundles, given: dict[str, Any]) -> None:
    option = next(iter(given))
    with pytest.raises(UsageError, match=f"^{option} needs the eager model"):
        check(checked(bundles, precision="fp32"), against="golden", **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"decode": "full"},
            r"^decode=full is for videos, and the golden clips are frames; name videos with clips=DIR",
        ),
        ({"readers": 2}, r"^readers=2 is for videos"),
        ({"readers": 0}, r"^readers=0 must be at least 1$"),
        ({"decode": "some"}, r"^decode='some' is not one of auto, full$"),
    ],
)
def test_ways_of_reading_are_for_videos(bundles: Bundles, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check(checked(bundles, precision="fp32"), **given)


@pytest.mark.parametrize(
    ("precision", "given", "name"),
    [
        ("fp32", {}, MODEL),  # the graph's own preprocessing
        ("fp16", {}, MODEL_DATA),  # the emulation
        ("fp32", {"per_block": True}, MODEL_DATA),
    ],
)
def test_files_that_are_overwritten_while_it_is_checked_are_refused(
    bundles: Bundles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    given: dict[str, Any],
    name: str,
) -> None:
    folder = shutil.copytree(checked(bundles, precision=precision).path, tmp_path / "large")
    large = move_weights_out(folder)

    def open_and_overwrite(*args: Any, **options: Any) -> Session:
        session = ve.open_session(*args, **options)
        with (large.path / name).open("r+b") as file:
            file.write(bytes(large.manifest.files[name].size))
        return session

    monkeypatch.setattr(recheck, "open_session", open_and_overwrite)
    with pytest.raises(BundleError, match=f"{name} is not the file that bundle.json describes"):
        check(large, num_clips=1, **given)


def test_an_unknown_reference_is_refused(bundles: Bundles) -> None:
    with pytest.raises(UsageError, match="against='silver' is not one of golden, eager"):
        check(checked(bundles, precision="fp32"), against="silver")  # type: ignore[arg-type]


def test_another_pillow_than_the_bundles_is_told_and_not_gated(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivit_export.export.check.installed_resize_order", lambda: "horizontal-first")
    monkeypatch.setattr(
        "vivit_export.export.checkpoint.load.hugging_face_pixels", lambda _p, frames: np.zeros((1,), "f4")
    )
    monkeypatch.setattr(
        "vivit_export.export.check.compare_pixels",
        lambda ours, reference, got, _expected, **options: compare_pixels(ours, reference, got, got + 1, **options),
    )
    report = check(checked(bundles, precision="fp32"), against="eager", num_clips=1)
    assert report.passed
    assert report.parity[0].differing == report.parity[0].values
    assert "(the installed Pillow resizes in another order than the bundle records)" in report.parity[0].sentence


# --- pixels ------------------------------------------------------------------------------------


def test_a_table_in_the_graph_is_compared_too(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "odd")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rescale_factor": 0.0123456789, "offset": False}))
    bundle = ve.export_model(str(folder), tmp_path / "out", targets=("onnx",), num_clips=1)
    assert bundle.manifest.precision.pixels in ("table", "arithmetic")
    assert check(bundle).passed
    assert read_bundle(bundle.path).manifest == dataclasses.replace(bundle).manifest


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"num_clips": 2.0}, "num_clips=2.0 must be a whole number"),
        ({"num_clips": "2"}, "num_clips='2' must be a whole number"),
        ({"readers": 1.5}, "readers=1.5 must be a whole number"),
        ({"views": 2, "clips": clips_path()}, "views=2 must be 2 whole numbers"),
        ({"gate": {"top1": 0.9}}, "gate={'top1': 0.9} must be text, such as top1=0.99,max=0.02"),
    ],
)
def test_numbers_and_gates_of_another_kind_are_refused(bundles: Bundles, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        check(bundles.demo(check=True), **given)
    assert str(raised.value) == sentence


def test_a_number_of_numpy_is_one(bundles: Bundles) -> None:
    given: Any = np.int64(2)
    drift = check(bundles.demo(check=True), num_clips=given).runs[0].drift
    assert drift is not None and drift.num_clips == 2

"""``vivit export`` as a user meets it: what it prints and where, what it leaves, what a dry run tells."""

from __future__ import annotations

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from checkpoints import Checkpoints
from command_line import Cli
from console import Exported, tree
from safetensors.numpy import load_file

import vivit_export as ve
from vivit_export import demo
from vivit_export.bundle import read_bundle

STAGES = [
    "load the checkpoint",
    "trace the network",
    "read the clips",
    "run eager fp32 on 8 clips",
    "run eager fp16 on 8 clips",
    "check the graph against eager",
    "compare preprocessed pixels",
    "write the bundle",
]


def test_results_are_on_stdout_and_stages_are_plain_lines_on_stderr(demo_export: Exported) -> None:
    lines = demo_export.stdout.splitlines()
    assert re.fullmatch(r"out/demo  \d\.\d MB, 5 files, hashes verified", lines[0])
    assert "  precision  fp16, attention as fused-op, opset 23" in lines
    assert "  input      frames uint8 (batch, 8, 64, 64, 3)" in lines
    assert "  engine     none; run: vivit build out/demo" in lines
    assert sum("top-1 100.0 %" in line for line in lines) == 5
    note, *stages = demo_export.stderr.splitlines()
    assert note.startswith(
        "  attention as one op (fused-op, opset 23), because no engine is built; with an engine it is"
    )
    assert [re.sub(r" \d+\.\d s$", "", line) for line in stages] == STAGES


def test_the_bundle_holds_what_was_printed(demo_export: Exported) -> None:
    found = read_bundle(demo_export.bundle)
    assert set(found.manifest.files) == {
        "model.onnx",
        "golden.safetensors",
        "recipe.toml",
        "report.json",
        "report.html",
    }
    assert found.manifest.model.id == "demo"
    assert found.contract.labels[:2] == ("left", "right")
    assert found.manifest.checks is not None
    runs = found.manifest.checks.runs
    assert [(run.batch, run.gated) for run in runs] == [(1, False), (1, True), (4, True), (8, True), (1, True)]
    golden = load_file(found.model.parent / "golden.safetensors")
    assert golden["frames"].shape == (8, 8, 64, 64, 3) and golden["frames"].dtype == np.uint8
    assert golden["logits"].shape == (8, 8) and golden["logits"].dtype == np.float32
    report = json.loads((found.path / "report.json").read_text())
    assert report["checks"] == found.manifest.checks.to_json()
    assert "<script" not in (found.path / "report.html").read_text()


def test_nothing_in_a_bundle_tells_where_it_was_made(demo_export: Exported) -> None:
    for name, content in tree(demo_export.bundle).items():
        for place in (demo_export.bundle.parents[1], demo.checkpoint_path(), Path.home()):
            assert str(place).encode() not in (content or b""), name


def test_the_same_checkpoint_gives_the_same_bytes_from_python_and_from_another_folder(
    demo_export: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    again = ve.export_model("demo", tmp_path / "elsewhere", precision="fp16", targets=("onnx",))
    assert again.path == tmp_path / "elsewhere"
    assert tree(again.path) == tree(demo_export.bundle)


def test_a_checkpoint_may_lie_anywhere_and_be_named_in_any_way(
    cli: Cli, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.copy(tmp_path / "a/mine")
    shutil.copytree(tmp_path / "a/mine", tmp_path / "b/mine")
    cli("export", tmp_path / "a/mine", "-q", "--target", "onnx", "--no-check")
    monkeypatch.chdir(tmp_path / "b/mine")
    cli("export", ".", "-o", tmp_path / "second", "-q", "--target", "onnx", "--no-check")
    assert tree(tmp_path / "home/mine-fp32") == tree(tmp_path / "second")
    assert read_bundle(tmp_path / "second").manifest.model.id == "mine"


def test_json_alone_on_stdout_and_nothing_on_stderr(cli: Cli, checkpoints: Checkpoints) -> None:
    options = ("--target", "onnx", "--no-check", "--sbom", "--json", "-q")
    result = cli("export", checkpoints.folder(), "-o", "out", *options)
    facts = json.loads(result.stdout)
    assert not result.stderr
    assert facts["bundle"] == "out"
    assert facts["size"] == read_bundle("out").size_bytes
    assert facts["checks"] is None and facts["engines"] == {}
    assert list(facts["seconds"]) == sorted(["load the checkpoint", "trace the network", "write the bundle"])
    assert "  drift      not checked" in cli("inspect", "out").stdout
    parts = {part["name"]: part for part in json.loads(Path("out/sbom.cdx.json").read_text())["components"]}
    assert parts["torch"]["version"] == version("torch")
    assert parts["model.onnx"]["hashes"][0]["content"] == read_bundle("out").manifest.files["model.onnx"].sha256


def test_python_refuses_an_option_it_does_not_know() -> None:
    with pytest.raises(ve.VivitExportError, match="'num_frames' is not an export option; use one of allow_pickle, "):
        ve.export_model("demo", num_frames=64)  # type: ignore[call-arg]


def test_the_bundle_names_the_users_clips_but_not_their_place(
    cli: Cli, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    shutil.copytree(demo.clips_path(), tmp_path / "my videos")
    cli("export", checkpoints.folder(), "-o", "out", "--target", "onnx", "--clips", "../my videos", "--num-clips", "1")
    checks = read_bundle("out").manifest.checks
    assert checks is not None
    assert (checks.clips.source, checks.clips.names) == ("my videos", ("down_180x320_24fps.mp4",))
    assert [(video.width, video.height) for video in checks.clips.videos if video] == [(180, 320)]


def test_force_replaces_a_bundle(cli: Cli, checkpoints: Checkpoints, demo_bundle: Path) -> None:
    cli("export", checkpoints.folder(), "-o", demo_bundle, "--target", "onnx", "--no-check", "--force")
    assert read_bundle(demo_bundle).manifest.model.id == checkpoints.folder().name


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    result = cli("export", "demo", "--bf16", "--target", "onnx", "--max-batch", "2", "--dry-run")
    assert result.stdout.splitlines() == [
        "would export demo to vivit-demo-bf16",
        "  precision  bf16",
        "  attention  fused-op",
        "  opset      23",
        "  input      crops",
        "  batches    [1, 2, 2]",
        "  check      True",
        "  engines    none",
        "  note       attention as one op (fused-op, opset 23), because no engine is built; with an engine it is "
        "MatMuls that compilers fuse (pattern, opset 22)",
    ]
    assert not any((tmp_path / "home").iterdir())


def test_a_dry_run_as_json_names_what_auto_leaves_out(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {"tensorrt": "there is no NVIDIA driver", "tensorrt-rtx": None}
    monkeypatch.setattr("vivit_export.export.engine.options.unavailable_reason", reasons.get)
    facts = json.loads(cli("export", "demo", "--fp16", "--dry-run", "--json").stdout)
    assert facts["engines"] == {"tensorrt-rtx": {"sms": [86, 89, 120]}}
    assert facts["skipped"] == {"tensorrt": "there is no NVIDIA driver"}
    assert facts["attention"] == "pattern"
    assert "  left out   tensorrt: there is no NVIDIA driver" in cli("export", "demo", "--dry-run").stdout


def test_a_dry_run_of_a_search_names_what_would_be_tried(cli: Cli, checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.folder()
    given = ["export", folder, "--precision", "auto", "--target", "onnx", "--dry-run"]
    assert cli(*given).stdout.splitlines() == [
        f"would export the fastest precision of {folder} inside its gate to {folder.name}-auto",
        "  tried      fp16, bf16, fp32",
        *(
            f"  not tried  {name}: INT8 and FP8 need ranges calibrated on real clips: name a folder of a few hundred "
            "videos with --calibration-data DIR (or --ranges ranges.json); random data would give wrong ranges"
            for name in ("fp8", "int8")
        ),
    ]
    facts = json.loads(cli(*given, "--json").stdout)
    assert set(facts["tried"]) == {"fp16", "bf16", "fp32"} and set(facts["impossible"]) == {"fp8", "int8"}
    assert not any((tmp_path / "home").iterdir())


def test_auto_is_one_choice_among_the_precisions(cli: Cli) -> None:
    refused = cli("export", "demo", "--int8", "--precision", "auto", "--dry-run", code=2)
    assert "--int8 and --precision auto exclude each other; give one precision" in refused.stderr
    assert "auto" in cli("calibrate", "demo", "--precision", "auto", code=2).stderr

"""The recipe in a bundle: it repeats the export bit for bit, and names no place of the machine that made it."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from bundles import Bundles
from click.testing import CliRunner

import vivit_export as ve
from vivit_export import demo
from vivit_export.bundle import RANGES, RECIPE, Bundle
from vivit_export.cli import vivit_export as command
from vivit_export.export import pipeline
from vivit_export.export.options import ExportOptions, ExportPreview, preview_export
from vivit_export.export.recipe import LEFT_OUT, OPTIONS, RESOLVED, recipe_text
from vivit_export.flavour import Flavour

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp16", "num_clips": 2, "views": (1, 3), "short": "loop", "gate": "top1=0.5,max=0.02"},
        {"precision": "bf16", "check": False, "attention": "pattern", "outputs": ("embedding",)},
    ],
)
def test_it_repeats_the_export_bit_for_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    first = ve.export_model("demo", tmp_path / "first", targets=("onnx",), **options)
    done = CliRunner().invoke(command, ["--config", str(first.path / RECIPE), "-o", str(tmp_path / "second")])
    assert done.exit_code == 0, done.output
    assert files(tmp_path / "second") == files(first.path)


@pytest.mark.needs_onnxruntime
def test_ranges_are_those_in_the_bundle(bundles: Bundles, tmp_path: Path) -> None:
    first = bundles.demo(precision="int8")
    assert "calibration" not in (first.path / RECIPE).read_text()
    done = CliRunner().invoke(command, ["--config", str(first.path / RECIPE), "-o", str(tmp_path / "second")])
    assert done.exit_code == 0, done.output
    for name in (RANGES, "model.onnx", "bundle.json"):
        assert (tmp_path / "second" / name).read_bytes() == (first.path / name).read_bytes()


def test_every_option_is_written_or_left_out_on_purpose() -> None:
    names = {field.name for field in dataclasses.fields(ExportOptions)}
    assert set(OPTIONS) | RESOLVED | LEFT_OUT == names
    assert len(OPTIONS) + len(RESOLVED) + len(LEFT_OUT) == len(names)
    flags = {flag for param in command.params for flag in param.opts}
    assert {f"--{key}" for key in OPTIONS.values()} <= flags


def plan_of(options: ExportOptions, flavours: tuple[Flavour, ...] = ()) -> ExportPreview:
    plan = preview_export("demo", Path("nowhere"), options)
    return dataclasses.replace(plan, flavours=flavours)


@pytest.mark.needs_rtx
@pytest.mark.parametrize(
    "options",
    [
        ExportOptions("fp16", ("tensorrt-rtx",), (86, 89), (2, 4, 16), allow_unfused=True, sbom=True),  # type: ignore[arg-type]
        ExportOptions("fp16", ("onnx",), input_mode="frames", frame_size=(360, 640)),  # type: ignore[arg-type]
        ExportOptions("fp16", ("onnx",), keep_fp32='^layers\\.1\\."x"', skip_rewrites=("layernorm", "key-bias")),  # type: ignore[arg-type]
        ExportOptions("fp16", ("onnx",), sampling="stride", stride=2, views=(4, 3), fix=True, num_clips=3),  # type: ignore[arg-type]
        ExportOptions("fp32", ("onnx",), opset=24, attention="fused-op", allow_pickle=True),  # type: ignore[arg-type]
    ],
)
def test_the_command_line_reads_what_was_meant(
    options: ExportOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = preview_export("demo", tmp_path / "out", options)
    (tmp_path / RECIPE).write_text(recipe_text(plan, is_folder=False, revision=None))
    seen: list[tuple[str, ExportOptions]] = []

    def stop(model: str, _target: Path, *, options: ExportOptions, **_: object) -> Bundle:
        seen.append((model, options))
        raise ve.VivitExportError("seen")

    monkeypatch.setattr(pipeline, "export_model", stop)
    CliRunner().invoke(command, ["--config", str(tmp_path / RECIPE), "-o", str(tmp_path / "out")])
    ((model, found),) = seen
    assert model == "demo"
    resolved = {"targets": ("onnx", *plan.flavours), "attention": plan.attention, "opset": plan.opset}
    assert found == dataclasses.replace(options, **resolved)  # type: ignore[arg-type]


def test_a_folder_of_the_user_is_named_but_not_where_it_lies(tmp_path: Path) -> None:
    name = 'my "model"\n#1'
    folder = Path(shutil.copytree(demo.checkpoint_path(), tmp_path / name))
    clips = Path(shutil.copytree(demo.clips_path(), tmp_path / "clips"))
    plan = preview_export(folder, tmp_path / "out", ExportOptions(targets=("onnx",), clips=clips))
    text = recipe_text(plan, is_folder=True, revision=None)
    assert str(tmp_path) not in text
    assert tomllib.loads(text)["export"] == {
        "model": f"./{name}",
        "precision": "fp32",
        "target": ["onnx"],
        "attention": "fused-op",
        "opset": 23,
        "clips": "clips",
    }
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert len(comments) == 2 and comments[1].endswith("--config recipe.toml --clips path/to/clips -o NEW_FOLDER")


def test_a_recipe_whose_folders_are_elsewhere_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(demo.checkpoint_path(), tmp_path / "there/mine"))
    made = ve.export_model(folder, tmp_path / "made", targets=("onnx",), check=False)
    runner = CliRunner()
    done = runner.invoke(command, ["--config", "made/recipe.toml", "-o", "again"])
    assert done.exit_code == 3
    assert "./mine does not exist; give a checkpoint folder" in done.output
    done = runner.invoke(command, ["there/mine", "--config", "made/recipe.toml", "-o", "again"])
    assert done.exit_code == 0, done.output
    assert files(tmp_path / "again") == files(made.path)


def test_the_commit_of_the_hub_is_written() -> None:
    plan = dataclasses.replace(plan_of(ExportOptions(targets=("onnx",), check=False)), model="owner/name")
    found = tomllib.loads(recipe_text(plan, is_folder=False, revision="c0ffee"))["export"]
    assert (found["model"], found["revision"]) == ("owner/name", "c0ffee")

"""What the command line refuses before it works, in one sentence and with its exit code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import Checkpoints, edit_config
from command_line import Cli, error_of

SHAPE = "is not possible: the checkpoint's position embeddings fix frames, height and width; only the batch is dynamic"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--fp16 --int8", "--fp16 and --int8 exclude each other; give one precision"),
        ("--fp32 --precision fp16", "--fp32 and --fp16 exclude each other; give one precision"),
        ("-q -v", "--quiet and --verbose exclude each other; give one of them"),
        ("--sm 90", "--sm 90: TensorRT for RTX does not support H100, H200 and B200; use --target tensorrt"),
        ("--sm 77", "--sm 77 is unknown to TensorRT for RTX; it supports 75, 80, 86, 89, 120, 121"),
        ("--sm abc", "Invalid value for '--sm': 'abc' is not a list such as 86,89,120"),
        ("--sm 86,,89", "Invalid value for '--sm': '86,,89' is not a list such as 86,89,120"),
        ("--sm=", "Invalid value for '--sm': '' is not a list such as 86,89,120"),
        ("--sm 89 --target onnx", "--sm compiles ahead of time for TensorRT-RTX; add --target tensorrt-rtx"),
        ("--fp8 --sm 86", "--sm 86 has no fp8 arithmetic, which needs 89 or newer"),
        ("--bf16 --sm 75", "--sm 75 has no bf16 arithmetic, which needs 80 or newer"),
        ("--opset 17", "--opset 17 is outside 20 to 24 for this graph"),
        (
            "--opset 22 --attention fused-op",
            "--opset 22 is outside 23 to 24 for this graph (Attention is an op since 23)",
        ),
        ("--gate nonsense=1", "--gate 'nonsense=1': 'nonsense' is not a metric; use one of"),
        ("--gate max=small", "--gate 'max=small': 'small' is not a number"),
        ("--gate max=nan", "--gate 'max=nan': a limit cannot be NaN"),
        ("--no-check --gate max=1", "--no-check cannot be combined with --gate, --clips or --num-clips"),
        ("--no-check --num-clips 1", "--no-check cannot be combined with --gate, --clips or --num-clips"),
        ("--num-clips 0", "--num-clips 0 must be at least 1"),
        ("--min-batch 0", "batches min=0, opt=4, max=8 must rise from 1 or more to at most 1024"),
        ("--min-batch 4 --opt-batch 2", "batches min=4, opt=2, max=8 must rise"),
        ("--max-batch 2000", "batches min=1, opt=4, max=2000 must rise"),
        ("--outputs logits,tokens", "--outputs 'tokens' is not one of logits, embedding"),
        ("--target onnx --allow-unfused", "--allow-unfused is about engines and --target onnx builds none"),
        ("--target onnx --min-batch 2", "--min-batch is about engines and --target onnx builds none"),
        ("--target onnx --timing-cache x", "--timing-cache is TensorRT's; add --target tensorrt or leave it out"),
        ("--target cuda", "Invalid value for '--target': 'cuda' is not one of"),
        ("--num-frames 64", f"--num-frames 64 {SHAPE}"),
        ("--image-size 256", f"--image-size 256 {SHAPE}"),
        ("--dynamic-axes batch,frames", f"--dynamic-axes batch,frames {SHAPE}"),
        ("--dynamic-axes --dry-run", f"--dynamic-axes {SHAPE}"),
        ("--num-frames", f"--num-frames {SHAPE}"),
        ("--gate top1=99", "--gate 'top1=99': no model could pass it; the limit must be above 0, and at most 1"),
        ("--gate cosine=-1", "--gate 'cosine=-1': no model could fail it; the limit must be above -1, and at most 1"),
    ],
)
def test_usage_errors(cli: Cli, arguments: str, sentence: str) -> None:
    assert error_of(cli("export", "demo", *arguments.split(), code=2)).startswith(sentence)


def test_int8_and_fp8_need_real_clips(cli: Cli, checkpoints: Checkpoints) -> None:
    for precision in ("int8", "fp8"):
        said = error_of(cli("export", checkpoints.folder(), f"--{precision}", code=2))
        assert said.startswith("INT8 and FP8 need ranges calibrated on real clips: name a folder")


def test_a_mistake_is_told_before_torch_is_loaded() -> None:
    code = """
import sys
from vivit_export.cli import vivit_export
try:
    vivit_export(["demo", "--clips", "nowhere", "--target", "onnx"])
except SystemExit as e:
    assert e.code == 3, e.code
assert not {"torch", "transformers", "onnx"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "error: nowhere does not exist; give a video file or a folder of videos\n"


@pytest.fixture
def place(tmp_path: Path, checkpoints: Checkpoints) -> Path:
    """A folder with things that are neither target nor checkpoint."""
    folder = tmp_path / "place"
    (folder / "work").mkdir(parents=True)
    (folder / "work/thesis.txt").write_text("mine")
    (folder / "file").write_text("mine")
    shutil.copytree(checkpoints.folder(), folder / "bert")
    edit_config(folder / "bert", model_type="bert")
    return folder


@pytest.mark.parametrize(
    ("model", "target", "options", "sentence"),
    [
        ("{0}/nothing", "out", "", "{0}/nothing does not exist; give a checkpoint folder, a hub id"),
        ("{0}/file", "out", "", "{0}/file is a file; give the folder"),
        ("{0}/work", "out", "", "{0}/work has no config.json"),
        ("{0}/bert", "out", "", "{0}/bert is a bert checkpoint; vivit-export takes model_type vivit"),
        ("demo", "{0}/file", "--force", "{0}/file exists and is not a folder; choose another name"),
        ("demo", "{0}/work", "--force", "{0}/work exists and is not a bundle, so it is left alone"),
        ("demo", "{0}/work", "--force --dry-run", "{0}/work exists and is not a bundle, so it is left alone"),
        ("demo", "{0}/file/out", "", "{0}/file/out cannot be written: {0}/file is not a folder you may write to"),
        ("demo", "/proc/vivit/out", "", "/proc/vivit/out cannot be written: No such file or directory"),
        (
            "demo",
            "out",
            "--target auto --timing-cache {0}/none/x",
            "--timing-cache {0}/none/x cannot be written: there",
        ),
        ("demo", "out", "--target auto --timing-cache /dev/null", "/dev/null is a device, not a file that can be"),
        ("demo", "out", "--clips {0}/work", "{0}/work holds no video"),
        ("demo", "out", "--clips {0}/file", "{0}/file cannot be read as a video|{0}/file is a text file"),
    ],
)
def test_unusable_input(cli: Cli, place: Path, model: str, target: str, options: str, sentence: str) -> None:
    arguments = [part.format(place) for part in ["export", model, "-o", target, *options.split()]]
    found = error_of(cli(*arguments, "--target", "onnx", code=3))
    assert any(found.startswith(part) for part in sentence.format(place).split("|")), found


def test_a_bundle_that_exists_needs_force(cli: Cli, demo_bundle: Path) -> None:
    sentence = error_of(cli("export", "demo", "-o", demo_bundle, code=3))
    assert sentence == f"{demo_bundle} exists; pass --force to replace that bundle, or choose another folder"


def test_without_the_hub_two_ways_on_are_named(cli: Cli) -> None:
    sentence = error_of(cli("export", "--target", "onnx", code=3))
    assert sentence.startswith(
        "cannot reach the hub for google/vivit-b-16x2-kinetics400 and it is not in the local cache"
    )
    assert "local checkpoint folder" in sentence and "vivit-export demo" in sentence

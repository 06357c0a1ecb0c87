"""``vivit convert scenic``: what it prints, and what it refuses, with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scenic_trees
from command_line import Cli, error_of
from safetensors.numpy import save_file

from vivit_export.bundle import read_bundle
from vivit_export.demo.motion import LABELS, render_clip


@pytest.fixture
def checkpoint(cli: Cli) -> Path:
    """A factorised encoder, in the folder where commands run."""
    path = Path("checkpoint").absolute()
    tree = scenic_trees.tree_of(scenic_trees.flat_parameters("encoder"))
    path.write_bytes(scenic_trees.flax_bytes({"optimizer": {"target": tree}, "global_step": 5}))
    return path


def test_it_says_what_it_converted(cli: Cli, checkpoint: Path) -> None:
    Path("names.txt").write_text("".join(f"name {i}\n" for i in range(7)))
    done = cli("convert", "scenic", checkpoint, "-o", "out", "--labels", "names.txt")
    assert done.stdout.splitlines() == [
        "out  ViViT with a factorised encoder, 0.2 M parameters",
        "  clip       8 frames of 32 x 32 pixels",
        "  output     7 logits: name 0, name 1, name 2, …",
        "  next       vivit-export out",
    ]
    assert "frames are resized to 37 pixels before the crop" in done.stderr
    assert "convert 92 weights" in done.stderr


def test_for_machines(cli: Cli, checkpoint: Path) -> None:
    done = cli("convert", "scenic", checkpoint, "-o", "out", "--classes", "2-3", "--json", "--quiet")
    told = json.loads(done.stdout)
    assert told["kind"] == "encoder" and told["clip"] == [8, 32, 32] and told["folder"] == "out"
    left_out = 5 * (scenic_trees.HIDDEN + 1)
    whole = sum(array.size for array in scenic_trees.flat_parameters("encoder").values())
    assert told["labels"] == ["LABEL_0", "LABEL_1"] and told["parameters"] == whole - left_out
    assert "take every 2nd frame" in " ".join(told["notes"])
    assert not done.stderr


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["--num-frames", "9"], 3, "--num-frames 9 does not fit: the temporal position table is for 8 frames"),
        (["--classes", "5-9"], 2, "--classes 5-9 is not part of the logits, which are 0-6"),
        (["--labels", "names.txt"], 3, "names.txt names 1 label, but the model has 7"),
        (["--labels", "none.txt"], 3, "none.txt cannot be read"),
    ],
)
def test_what_does_not_fit_leaves_nothing(cli: Cli, checkpoint: Path, more: list[str], code: int, told: str) -> None:
    Path("names.txt").write_text("a\n")
    assert told in error_of(cli("convert", "scenic", checkpoint, "-o", "out", *more, code=code))


@pytest.mark.parametrize("given", ["3", "3-", "a-b", "-3-4", "3-4-5", "³-4"])
def test_a_range_is_two_numbers(cli: Cli, checkpoint: Path, given: str) -> None:
    done = cli("convert", "scenic", checkpoint, "-o", "out", f"--classes={given}", code=2)
    assert "is not a range such as 0-299" in done.stderr


def test_an_existing_folder_is_kept_unless_it_was_converted(cli: Cli, checkpoint: Path) -> None:
    command = ("convert", "scenic", checkpoint, "-o", "out")
    cli(*command)
    assert "pass --force to replace that converted checkpoint" in error_of(cli(*command, code=3))
    cli(*command, "--force")
    Path("mine").mkdir()
    Path("mine/x").touch()
    said = error_of(cli("convert", "scenic", checkpoint, "-o", "mine", "--force", code=3))
    assert "mine exists and is not a converted checkpoint, so it is left alone" in said


def test_what_is_no_checkpoint_is_refused(cli: Cli) -> None:
    Path("notes.txt").write_text("hello")
    said = error_of(cli("convert", "scenic", "notes.txt", "-o", "out", code=3))
    assert said == "notes.txt is not a checkpoint that Flax wrote: it holds no names"
    assert "is a folder; give the file in it" in error_of(cli("convert", "scenic", ".", "-o", "out", code=3))


def test_what_was_converted_is_exported_in_int8_with_every_linear_of_both_stacks(cli: Cli, checkpoint: Path) -> None:
    cli("convert", "scenic", checkpoint, "-o", "encoder")
    clips = [render_clip(LABELS[i % 8], seed=i, num_frames=8, height=32, width=32) for i in range(32)]
    save_file({"frames": np.stack(clips)}, "crops.safetensors")
    options = ("--int8", "--target", "onnx", "--calibration-data", "crops.safetensors")
    told = json.loads(cli("export", "encoder", "-o", "bundle", *options, "--json").stdout)
    anatomy = told["model"]["anatomy"]
    assert [(stack["path"], stack["blocks"]) for stack in anatomy["stacks"]] == [
        ("spatial.layers", 3),
        ("temporal.layers", 2),
    ]
    layers = read_bundle("bundle").manifest.precision.quantization
    assert layers is not None and sum(len(layer.linears) for layer in layers.layers.values()) == 5 * 6
    assert all(layer.type == "int8" for layer in layers.layers.values())


def test_it_loads_neither_torch_nor_msgpack(checkpoint: Path) -> None:
    code = (
        "import sys, vivit_export as ve; ve.convert_scenic('checkpoint', 'out'); "
        "assert not {'torch', 'transformers', 'msgpack', 'jax', 'flax'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

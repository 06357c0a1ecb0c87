"""What fails in the middle: its exit code, its sentence, and a full disk in every stage that writes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoints import Checkpoints
from command_line import Cli, error_of
from console import tree
from small_disk import MountDisk


@pytest.mark.needs_rtx
def test_a_compiler_that_refuses_is_exit_4(cli: Cli, checkpoints: Checkpoints) -> None:
    options = ("--fp32", "--attention", "fused-op", "--target", "tensorrt-rtx", "--sm", "89", "--no-check")
    result = cli("export", checkpoints.folder(num_hidden_layers=2), "-o", "out", *options, code=4)
    assert error_of(result).endswith("use --fp16, or --attention pattern")
    assert "failed: compile tensorrt-rtx-sm89" in result.stderr


def test_a_gate_that_cannot_be_met_is_exit_5(cli: Cli, checkpoints: Checkpoints) -> None:
    options = ("--fp16", "--target", "onnx", "--gate", "max=0", "--num-clips", "2")
    sentence = error_of(cli("export", checkpoints.folder(), "-o", "a/b/out", *options, code=5, leaves="home/a"))
    assert re.match(r"drift beyond the gate in onnxruntime .* at batch 1: .*max .* is above 0", sentence)
    assert "; no bundle was written (a wider type drifts less" in sentence
    assert sentence.endswith("the report is in a/b/out.failed")


@pytest.mark.needs_rtx
def test_attention_that_is_not_fused_is_exit_6_unless_allowed(cli: Cli, checkpoints: Checkpoints) -> None:
    wide = checkpoints.folder(
        hidden_size=320, num_attention_heads=1, num_hidden_layers=2
    )  # no kernel for heads beyond 256
    options = ("--fp16", "--target", "tensorrt-rtx", "--sm", "89", "--no-check")
    sentence = error_of(cli("export", wide, "-o", "out", *options, code=6))
    assert sentence.startswith("attention fused in 0 of 2 blocks (fp16)")
    result = cli("export", wide, "-o", "out", *options, "--allow-unfused")
    assert "attention fused in 0 of 2 blocks (allowed)" in result.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--target", "tensorrt"], "--target tensorrt: there is no NVIDIA driver"),
        (["--target", "auto", "--target", "tensorrt"], "--target tensorrt: there is no NVIDIA driver"),
        (["--timing-cache", "x"], "--timing-cache: there is no NVIDIA driver"),
    ],
)
def test_a_target_this_machine_cannot_build_is_exit_7(
    cli: Cli, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    reasons = {"tensorrt": "there is no NVIDIA driver", "tensorrt-rtx": None}
    monkeypatch.setattr("vivit_export.export.engine.options.unavailable_reason", reasons.get)
    assert error_of(cli("export", "demo", *options, code=7)).startswith(sentence)
    assert error_of(cli("build", demo_bundle, *options, code=7)).startswith(sentence)


def test_an_sm_is_not_ignored_where_its_compiler_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivit_export.export.engine.options.unavailable_reason", lambda _: "it is not installed")
    assert error_of(cli("export", "demo", "--sm", "89", code=7)) == "--sm: it is not installed"


def test_a_missing_checker_is_told_before_the_work(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    sentence = error_of(cli("export", "demo", "--target", "onnx", code=7))
    assert 'pip install "vivit-export[cpu]", or pass --no-check' in sentence


def test_a_fault_of_our_own_shows_its_traceback(
    cli: Cli, tmp_path: Path, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("vivit_export.export.amend.write_report", fail)
    before = tree(tmp_path)
    with pytest.raises(ZeroDivisionError):
        cli("export", checkpoints.folder(), "-o", "a/out", "--target", "onnx", "--no-check")
    assert tree(tmp_path) == before


def test_verbose_shows_where_an_error_came_from(cli: Cli) -> None:
    result = cli("export", "nobody/nothing", "--target", "onnx", "-v", code=3)
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: cannot reach the hub for nobody/nothing")


@pytest.mark.needs_rtx
@pytest.mark.parametrize(
    ("size", "reached"),  # KiB, with a graph of 53, clips of 26, a graph to emulate with of 100 and an engine of 1500
    [
        (16, "load the checkpoint"),
        (68, "run eager fp16 on 8 clips"),
        (120, "run eager fp16 on 8 clips"),
        (1024, "compare preprocessed pixels"),
    ],
)
def test_a_full_disk_in_every_stage_that_writes(
    cli: Cli, checkpoints: Checkpoints, small_disk: MountDisk, size: int, reached: str
) -> None:
    disk = small_disk(size)
    options = ("--fp16", "--target", "tensorrt-rtx", "--sm", "89", "--allow-unfused")
    result = cli("export", checkpoints.folder(), "-o", disk / "a/out", *options, code=3)
    assert re.search(r"disk is full|No space left on device", error_of(result))
    done = [line for line in result.stderr.splitlines() if not line.startswith(("failed: ", "error: "))]
    assert done[-1].startswith(reached)
    assert not any(disk.iterdir())

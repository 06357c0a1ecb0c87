"""``vivit inspect``: what the export printed, the manifest as JSON, damage, and the plan of an engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import onnx
import pytest
from command_line import Cli, error_of
from console import BIN, Exported, console

from vivit_export.bundle import read_bundle


def test_inspect_prints_what_the_export_printed(demo_export: Exported) -> None:
    done = console("vivit", "inspect", "out/demo", "-q", cwd=demo_export.bundle.parents[1])
    more = "  labels     8: left, right, up, down, grow, shrink, turn_left, turn_right\n  signature  none\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, demo_export.stdout + more, "")


def test_inspect_says_that_it_verifies_unless_it_is_to_be_quiet(cli: Cli, demo_bundle: Path) -> None:
    assert re.fullmatch(r"verify the bundle \d+\.\d s\n", cli("inspect", demo_bundle).stderr)
    assert not cli("inspect", demo_bundle, "--quiet").stderr


def test_inspect_shows_saved_timings(cli: Cli, demo_bundle: Path) -> None:
    options = ("--engine", "onnxruntime-cpu", "--rounds", "2", "--warmup", "0", "--anyway", "--save", "-q")
    table = cli("bench", demo_bundle, *options).stdout.splitlines()
    lines = cli("inspect", demo_bundle, "-q").stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  timings    "))
    assert lines[start].endswith(", 2 rounds")
    assert lines[start + 1 : start + 3] == [f"             {line}" for line in table[:2]]


def test_inspect_as_json_is_the_manifest(cli: Cli, demo_bundle: Path) -> None:
    facts = json.loads(cli("inspect", demo_bundle, "--json").stdout)
    manifest = json.loads((demo_bundle / "bundle.json").read_text())
    size = read_bundle(demo_bundle).size_bytes
    assert facts == {"bundle": str(demo_bundle), "size": size, "plans": {}, "signature": None, **manifest}


def test_a_terminal_without_greek_still_shows_the_figures(demo_bundle: Path) -> None:
    environment = {"PYTHONIOENCODING": "latin-1", "HOME": str(demo_bundle)}
    done = subprocess.run([BIN / "vivit", "inspect", demo_bundle], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"max |?|" in done.stdout


def test_inspect_finds_one_altered_byte(cli: Cli, demo_bundle: Path) -> None:
    path = demo_bundle / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert error_of(cli("inspect", demo_bundle, code=3)).startswith(
        f"{path} is not the file that bundle.json describes"
    )


@pytest.mark.needs_rtx
def test_the_plan_is_shown_and_drawn(cli: Cli, demo_bundle: Path) -> None:
    cli("build", demo_bundle, "--target", "tensorrt-rtx", "--sm", "89")
    lines = cli("inspect", demo_bundle, "--plan-onnx", "plan.onnx").stdout.splitlines()
    start = lines.index(next(line for line in lines if line.startswith("  plan ")))
    assert lines[start].startswith("  plan       tensorrt-rtx-sm89: SM89, ")
    assert " kernels in " in lines[start]
    assert "attention    4  fused, 4 Half: layers.0-3.attention" in lines[start + 1]
    assert "gemm        18  18 Half" in lines[start + 2]
    onnx.checker.check_model("plan.onnx", full_check=True)
    nodes = onnx.load("plan.onnx").graph.node
    assert sum(node.op_type == "attention" for node in nodes) == 4

    facts = json.loads(cli("inspect", demo_bundle, "--json").stdout)
    plan = facts["plans"]["tensorrt-rtx-sm89"]
    assert plan["attention"] == [f"layers.{i}.attention" for i in range(4)]
    assert [layer["name"] for layer in plan["layers"]] == [node.name for node in nodes]
    # The manifest, which every reader loads, keeps the summary only.
    assert "layers" not in facts["engines"]["tensorrt-rtx-sm89"]

    cli("build", demo_bundle, "--target", "tensorrt-rtx", "--sm", "120")
    several = cli("inspect", demo_bundle, "--plan-onnx", "other.onnx", code=2)
    assert "name one with --engine: tensorrt-rtx-sm120, tensorrt-rtx-sm89" in several.stderr
    cli("inspect", demo_bundle, "--plan-onnx", "other.onnx", "--engine", "tensorrt-rtx-sm120")
    assert Path("other.onnx").is_file()
    named = ("inspect", demo_bundle, "--engine", "tensorrt-rtx-sm89", "--plan-onnx")
    assert error_of(cli(*named, "other.onnx", code=3)).startswith("other.onnx exists; pass --force to replace")
    cli(*named, "other.onnx", "--force")
    assert onnx.load("other.onnx").graph.name == "tensorrt-rtx-sm89"
    os.mkfifo("pipe")
    sentence = error_of(cli(*named, "pipe", "--force", code=3))
    assert sentence == "pipe is a pipe, not a file that can be replaced; choose another name"
    assert Path("pipe").is_fifo()


def test_a_plan_needs_an_engine(cli: Cli, demo_bundle: Path) -> None:
    assert "holds no engine" in cli("inspect", demo_bundle, "--plan-onnx", "plan.onnx", code=2).stderr
    assert "give both" in cli("inspect", demo_bundle, "--engine", "tensorrt", code=2).stderr
    assert "--force replaces the file that --plan-onnx writes" in cli("inspect", demo_bundle, "--force", code=2).stderr

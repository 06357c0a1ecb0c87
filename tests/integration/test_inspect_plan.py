"""``vivit inspect`` on a bundle with a compiled engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import Result

Cli = Callable[..., Result]


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


def test_a_plan_needs_an_engine(cli: Cli, demo_bundle: Path) -> None:
    assert "holds no engine" in cli("inspect", demo_bundle, "--plan-onnx", "plan.onnx", code=2).stderr
    assert "give both" in cli("inspect", demo_bundle, "--engine", "tensorrt", code=2).stderr

"""``vivit build``: engines are added, nothing else changes, and what cannot be built is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Cli, error_of
from console import tree

from vivit_export.bundle import read_bundle
from vivit_export.bundle.engines import Profile


@pytest.mark.needs_rtx
def test_build_adds_engines_and_keeps_what_is_there(
    cli: Cli, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {"tensorrt": "there is no NVIDIA driver", "tensorrt-rtx": None}
    monkeypatch.setattr("vivit_export.export.engine.options.unavailable_reason", reasons.get)
    before = tree(demo_bundle)
    result = cli("build", demo_bundle, "--target", "tensorrt-rtx", "--sm", "89", "--max-batch", "2")
    assert "  engine     tensorrt-rtx-sm89: tensorrt-rtx " in result.stdout
    assert "attention fused in 4 of 4 blocks (Half)" in result.stdout
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in result.stderr.splitlines()] == [
        "verify the bundle",
        "compile tensorrt-rtx-sm89",
        "write the bundle",
    ]
    first = tree(demo_bundle)
    assert first.keys() - before.keys() == {
        "engines",
        "engines/tensorrt-rtx-sm89.json",
        "engines/tensorrt-rtx-sm89.plan",
    }
    changed = {"bundle.json", "report.json", "report.html"}
    assert {name for name in before if before[name] != first[name]} == changed

    result = cli("build", demo_bundle, "--sm", "120", "--json")
    assert "  left out: tensorrt: there is no NVIDIA driver\n" in result.stderr
    assert json.loads(result.stdout)["engines"].keys() == {"tensorrt-rtx-sm89", "tensorrt-rtx-sm120"}
    second = tree(demo_bundle)
    assert {name for name in first if first[name] != second[name]} == changed
    engines = read_bundle(demo_bundle).engines
    assert {name: engine.sms for name, engine in engines.items()} == {
        "tensorrt-rtx-sm89": (89,),
        "tensorrt-rtx-sm120": (120,),
    }
    assert engines["tensorrt-rtx-sm89"].profiles == (Profile(1, 2, 2),)

    options = ("build", demo_bundle, "--target", "tensorrt-rtx", "--sm", "89")
    message = f"{demo_bundle} already has the engine tensorrt-rtx-sm89; pass --force to build it again"
    assert error_of(cli(*options, code=3)) == message
    cli(*options, "--force")
    assert read_bundle(demo_bundle).engines["tensorrt-rtx-sm89"].profiles == (Profile(1, 4, 8),)


@pytest.mark.needs_rtx
def test_an_engine_for_one_clip(cli: Cli, demo_bundle: Path) -> None:
    cli("build", demo_bundle, "--target", "tensorrt-rtx", "--sm", "89", "--max-batch", "1")
    engine = read_bundle(demo_bundle).engines["tensorrt-rtx-sm89"]
    assert engine.profiles == (Profile(1, 1, 1),)
    assert engine.proof == (
        "attention fused in 4 of 4 blocks (Half)",
        "16 of 16 encoder GEMMs in Half",
        "other GEMMs: 2 in Half",
    )


@pytest.mark.needs_rtx
def test_builds_at_the_same_time_lose_no_engine(demo_bundle: Path) -> None:
    sms = ("86", "89", "120")
    code = "from vivit_export.cli import vivit; vivit()"
    builds = [
        subprocess.Popen(
            [sys.executable, "-c", code, "build", demo_bundle, "--target", "tensorrt-rtx", "--sm", sm],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for sm in sms
    ]
    said = [build.communicate(timeout=300)[0] for build in builds]
    assert [build.returncode for build in builds] == [0, 0, 0], said
    assert read_bundle(demo_bundle).engines.keys() == {f"tensorrt-rtx-sm{sm}" for sm in sms}
    assert "waits for another process that changes" in "".join(said)


@pytest.mark.needs_rtx
def test_build_will_not_lose_a_file_of_the_user(cli: Cli, demo_bundle: Path) -> None:
    (demo_bundle / "notes.txt").write_text("mine")
    sentence = error_of(cli("build", demo_bundle, "--target", "tensorrt-rtx", "--sm", "89", code=3))
    assert (
        sentence
        == f"{demo_bundle} holds notes.txt, which is not part of the bundle and would be lost; move it elsewhere"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--target", "onnx"], 2, "--target onnx: the bundle holds its ONNX graph already; name an engine"),
        (["--target", "tensorrt", "--sm", "89"], 2, "--sm compiles ahead of time for TensorRT-RTX; add --target"),
        (["--timing-cache", "x", "--target", "tensorrt-rtx"], 2, "--timing-cache is TensorRT's; add --target tensorrt"),
        (["--sm", "90"], 2, "--sm 90: TensorRT for RTX does not support H100"),
        (["--min-batch", "4", "--max-batch", "2"], 2, "batches min=4, opt=4, max=2 must rise"),
        (["--max-batch", "4096"], 2, "batches min=1, opt=4, max=4096 must rise from 1 or more to at most 1024"),
        (["-q", "-v"], 2, "--quiet and --verbose exclude each other"),
    ],
)
def test_build_refuses_options_that_cannot_be_honoured(
    cli: Cli, demo_bundle: Path, arguments: list[str], code: int, sentence: str
) -> None:
    assert error_of(cli("build", demo_bundle, *arguments, code=code)).startswith(sentence)


def test_build_of_no_bundle(cli: Cli) -> None:
    assert error_of(cli("build", "nowhere", code=3)).startswith("nowhere is not a folder; make a bundle with")


def test_where_nothing_can_be_built_each_reason_is_told(
    cli: Cli, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivit_export.export.engine.options.unavailable_reason", lambda flavour: f"no {flavour} here")
    sentence = error_of(cli("build", demo_bundle, code=7))
    assert sentence == "no engine can be built here: tensorrt: no tensorrt here; tensorrt-rtx: no tensorrt-rtx here"

"""The commands as a user meets them: what they print and where, what they leave, how they exit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Checkpoints, edit_config
from click.testing import Result
from console import BIN, Exported, console, tree
from safetensors.numpy import load_file

import vivit_export as ve
from vivit_export import cli as cli_module
from vivit_export import demo
from vivit_export.bundle import read_bundle

Cli = Callable[..., Result]

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


def error_of(result: Result) -> str:
    """The one sentence after "error:"; stages may stand before it."""
    (line,) = [line for line in result.stderr.splitlines() if line.lower().startswith("error: ")]
    assert result.stderr.endswith(f"{line}\n")
    assert "Traceback" not in result.stderr
    return line[len("error: ") :]


# --- export ------------------------------------------------------------------------------------


def test_results_are_on_stdout_and_stages_are_plain_lines_on_stderr(demo_export: Exported) -> None:
    lines = demo_export.stdout.splitlines()
    assert re.fullmatch(r"out/demo  \d\.\d MB, 4 files, hashes verified", lines[0])
    assert "  precision  fp16, attention as fused-op, opset 23" in lines
    assert "  input      frames uint8 (batch, 8, 64, 64, 3)" in lines
    assert "  engine     none; run: vivit build out/demo" in lines
    assert sum("top-1 100.0 %" in line for line in lines) == 5
    assert [re.sub(r" \d+\.\d s$", "", line) for line in demo_export.stderr.splitlines()] == STAGES


def test_the_bundle_holds_what_was_printed(demo_export: Exported) -> None:
    found = read_bundle(demo_export.bundle)
    assert set(found.manifest["files"]) == {"model.onnx", "golden.safetensors", "report.json", "report.html"}
    assert found.manifest["model"]["id"] == "demo"
    assert found.contract.labels[:2] == ("left", "right")
    runs = found.manifest["checks"]["runs"]
    assert [(run["batch"], run["gated"]) for run in runs] == [(1, False), (1, True), (4, True), (8, True), (1, True)]
    golden = load_file(found.model.parent / "golden.safetensors")
    assert golden["frames"].shape == (8, 8, 64, 64, 3) and golden["frames"].dtype == np.uint8
    assert golden["logits"].shape == (8, 8) and golden["logits"].dtype == np.float32
    report = json.loads((found.path / "report.json").read_text())
    assert report["checks"] == found.manifest["checks"]
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
    assert read_bundle(tmp_path / "second").manifest["model"]["id"] == "mine"


def test_json_alone_on_stdout_and_nothing_on_stderr(cli: Cli, checkpoints: Checkpoints) -> None:
    result = cli("export", checkpoints.folder(), "-o", "out", "--target", "onnx", "--no-check", "--json", "-q")
    facts = json.loads(result.stdout)
    assert not result.stderr
    assert facts["bundle"] == "out"
    assert facts["size"] == read_bundle("out").size_bytes
    assert facts["checks"] == {} and facts["engines"] == {}
    assert list(facts["seconds"]) == sorted(["load the checkpoint", "trace the network", "write the bundle"])
    assert "  drift      not checked" in cli("inspect", "out").stdout


def test_python_refuses_an_option_it_does_not_know() -> None:
    with pytest.raises(ve.VivitExportError, match="'num_frames' is not an export option; use one of allow_pickle, "):
        ve.export_model("demo", num_frames=64)


def test_the_bundle_names_the_users_clips_but_not_their_place(
    cli: Cli, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    shutil.copytree(demo.clips_path(), tmp_path / "my videos")
    cli("export", checkpoints.folder(), "-o", "out", "--target", "onnx", "--clips", "../my videos", "--num-clips", "1")
    clips = read_bundle("out").manifest["checks"]["clips"]
    assert clips == {"source": "my videos", "names": ["down_180x320_24fps.mp4"]}


def test_force_replaces_a_bundle(cli: Cli, checkpoints: Checkpoints, demo_bundle: Path) -> None:
    cli("export", checkpoints.folder(), "-o", demo_bundle, "--target", "onnx", "--no-check", "--force")
    assert read_bundle(demo_bundle).manifest["model"]["id"] == checkpoints.folder().name


# --- dry run -----------------------------------------------------------------------------------


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
    ]
    assert not any((tmp_path / "home").iterdir())


def test_a_dry_run_as_json_names_what_auto_leaves_out(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {"tensorrt": "there is no NVIDIA driver", "tensorrt-rtx": None}
    monkeypatch.setattr("vivit_export.export.options.unavailable_reason", reasons.get)
    facts = json.loads(cli("export", "demo", "--fp16", "--dry-run", "--json").stdout)
    assert facts["engines"] == {"tensorrt-rtx": {"sms": [86, 89, 120]}}
    assert facts["skipped"] == {"tensorrt": "there is no NVIDIA driver"}
    assert facts["attention"] == "pattern"
    assert "  left out   tensorrt: there is no NVIDIA driver" in cli("export", "demo", "--dry-run").stdout


# --- inspect -----------------------------------------------------------------------------------


def test_inspect_prints_what_the_export_printed(demo_export: Exported) -> None:
    done = console("vivit", "inspect", "out/demo", cwd=demo_export.bundle.parents[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, demo_export.stdout, "")


def test_inspect_as_json_is_the_manifest(cli: Cli, demo_bundle: Path) -> None:
    facts = json.loads(cli("inspect", demo_bundle, "--json").stdout)
    manifest = json.loads((demo_bundle / "bundle.json").read_text())
    assert facts == {"bundle": str(demo_bundle), "size": read_bundle(demo_bundle).size_bytes, "plans": {}, **manifest}


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


# --- build -------------------------------------------------------------------------------------


@pytest.mark.needs_rtx
def test_build_adds_engines_and_keeps_what_is_there(
    cli: Cli, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {"tensorrt": "there is no NVIDIA driver", "tensorrt-rtx": None}
    monkeypatch.setattr("vivit_export.export.options.unavailable_reason", reasons.get)
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
    assert {name: engine["sms"] for name, engine in engines.items()} == {
        "tensorrt-rtx-sm89": [89],
        "tensorrt-rtx-sm120": [120],
    }
    assert engines["tensorrt-rtx-sm89"]["profiles"] == [{"min": 1, "opt": 2, "max": 2}]

    options = ("build", demo_bundle, "--target", "tensorrt-rtx", "--sm", "89")
    message = f"{demo_bundle} already has the engine tensorrt-rtx-sm89; pass --force to build it again"
    assert error_of(cli(*options, code=3)) == message
    cli(*options, "--force")
    assert read_bundle(demo_bundle).engines["tensorrt-rtx-sm89"]["profiles"] == [{"min": 1, "opt": 4, "max": 8}]


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
    monkeypatch.setattr("vivit_export.export.options.unavailable_reason", lambda flavour: f"no {flavour} here")
    sentence = error_of(cli("build", demo_bundle, code=7))
    assert sentence == "no engine can be built here: tensorrt: no tensorrt here; tensorrt-rtx: no tensorrt-rtx here"


# --- exit codes --------------------------------------------------------------------------------

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
        ("--outputs logits,tokens", "outputs 'tokens' is not one of logits, embedding"),
        ("--target onnx --allow-unfused", "--allow-unfused is about engines and --target onnx builds none"),
        ("--target onnx --min-batch 2", "--min-batch is about engines and --target onnx builds none"),
        ("--target onnx --timing-cache x", "--timing-cache is TensorRT's; add --target tensorrt or leave it out"),
        ("--target cuda", "Invalid value for '--target': 'cuda' is not one of"),
        ("--num-frames 64", f"--num-frames 64 {SHAPE}"),
        ("--image-size 256", f"--image-size 256 {SHAPE}"),
        ("--dynamic-axes batch,frames", f"--dynamic-axes batch,frames {SHAPE}"),
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
    """A folder with things that are no target and no checkpoint."""
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


@pytest.mark.needs_rtx
def test_a_compiler_that_refuses_is_exit_4(cli: Cli, checkpoints: Checkpoints) -> None:
    options = ("--fp32", "--attention", "fused-op", "--target", "tensorrt-rtx", "--sm", "89", "--no-check")
    result = cli("export", checkpoints.folder(num_hidden_layers=2), "-o", "out", *options, code=4)
    assert error_of(result).endswith("use --fp16, or --attention pattern")
    assert "failed: compile tensorrt-rtx-sm89" in result.stderr


def test_a_gate_that_cannot_be_met_is_exit_5(cli: Cli, checkpoints: Checkpoints) -> None:
    options = ("--fp16", "--target", "onnx", "--gate", "max=0", "--num-clips", "2")
    sentence = error_of(cli("export", checkpoints.folder(), "-o", "a/b/out", *options, code=5))
    assert re.match(r"drift beyond the gate in onnxruntime .* at batch 1: .*max .* is above 0", sentence)
    assert "; nothing was written (a wider type drifts less" in sentence


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
    monkeypatch.setattr("vivit_export.export.options.unavailable_reason", reasons.get)
    assert error_of(cli("export", "demo", *options, code=7)).startswith(sentence)
    assert error_of(cli("build", demo_bundle, *options, code=7)).startswith(sentence)


def test_an_sm_is_not_ignored_where_its_compiler_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivit_export.export.options.unavailable_reason", lambda _: "it is not installed")
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


# --- a full disk -------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many KiB, where this process may."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this process may not mount a file system")
        return place

    yield mount
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True)


@pytest.mark.needs_rtx
@pytest.mark.parametrize(
    ("size", "reached"),  # KiB, with a graph of 53, clips of 26, a graph to emulate with of 100 and an engine of 1500
    [(16, "load the checkpoint"), (68, STAGES[4]), (120, STAGES[4]), (1024, STAGES[6])],
)
def test_a_full_disk_in_every_stage_that_writes(
    cli: Cli, checkpoints: Checkpoints, small_disk: Callable[[int], Path], size: int, reached: str
) -> None:
    disk = small_disk(size)
    options = ("--fp16", "--target", "tensorrt-rtx", "--sm", "89", "--allow-unfused")
    result = cli("export", checkpoints.folder(), "-o", disk / "a/out", *options, code=3)
    assert re.search(r"disk is full|No space left on device", error_of(result))
    done = [line for line in result.stderr.splitlines() if not line.startswith(("failed: ", "error: "))]
    assert done[-1].startswith(reached)
    assert not any(disk.iterdir())


# --- without torch -----------------------------------------------------------------------------

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def no_torch(tmp_path: Path) -> dict[str, str]:
    """Environment of a machine that has neither torch nor transformers."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER)
    return {"PYTHONPATH": str(folder), "PATH": str(BIN)}


def test_inspect_needs_no_torch_and_export_says_that_it_does(no_torch: dict[str, str], demo_bundle: Path) -> None:
    done = console("vivit", "inspect", demo_bundle, cwd=demo_bundle, env=no_torch)
    assert done.returncode == 0, done.stderr
    done = console("vivit-export", "demo", "--target", "onnx", cwd=demo_bundle, env=no_torch)
    assert done.returncode == 7
    assert done.stderr == "error: the package torch is not installed; pip install vivit-export\n"


@pytest.mark.needs_rtx
def test_engines_are_built_without_torch(no_torch: dict[str, str], demo_bundle: Path) -> None:
    command = ("build", demo_bundle, "--target", "tensorrt-rtx", "--sm", "89")
    done = console("vivit", *command, cwd=demo_bundle.parent, env=no_torch)
    assert done.returncode == 0, done.stderr
    code = f"""
import vivit_export as ve
built = ve.build_engines({str(demo_bundle)!r}, ["tensorrt-rtx"], sms=(120,))
assert set(built.engines) == {{"tensorrt-rtx-sm89", "tensorrt-rtx-sm120"}}
"""
    done = console("python", "-c", code, cwd=demo_bundle.parent, env=no_torch)
    assert done.returncode == 0, done.stderr


# --- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["vivit-export", "vivit"])
def test_help_is_there_at_once(command: str, tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = console(command, "--help", cwd=tmp_path)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0 and done.stdout.startswith(f"Usage: {command} ")
    assert min(seconds) < 0.3


def test_help_names_every_option_but_those_always_refused(cli: Cli) -> None:
    text = cli("export", "--help").stdout
    for option in cli_module.vivit_export.params:
        for flag in getattr(option, "opts", ()):
            if flag.startswith("--"):
                assert (flag in text) != option.hidden, flag  # type: ignore[attr-defined]


def test_both_commands_tell_their_version(tmp_path: Path) -> None:
    for command in ("vivit-export", "vivit"):
        assert console(command, "--version", cwd=tmp_path).stdout.strip().endswith(version("vivit-export"))


# --- calibrate ---------------------------------------------------------------------------------


def test_calibrate_prints_a_table_and_an_export_takes_its_file(cli: Cli) -> None:
    printed = cli("calibrate", "demo", "--calibration-clips", "32", "-q").stdout.splitlines()
    assert printed[0] == "ranges.json  int8 ranges by mse, 32 clips: motion clips rendered for the demo"
    assert printed[1].split() == ["layer", "range", "largest", "alpha", "error"]
    assert len(printed) == 2 + 16 + 1
    out = cli("export", "demo", "--int8", "--ranges", "ranges.json", "--target", "onnx", "-o", "out", "-q").stdout
    assert "  quantised  16 of 16 layers by mse, " in out
    assert read_bundle("out").precision == "int8"


def test_calibrate_for_fp8_by_another_method(cli: Cli) -> None:
    cli("calibrate", "demo", "--fp8", "--calibration-method", "minmax", "--calibration-clips", "32", "-o", "f.json")
    found = json.loads(Path("f.json").read_text())
    assert (found["precision"], found["method"], found["clips"]["used"]) == ("fp8", "minmax", 32)
    said = error_of(cli("export", "demo", "--int8", "--ranges", "f.json", "-o", "out", code=3))
    assert said == "f.json holds ranges for fp8; use --fp8 with them"


def test_calibrate_leaves_nothing_where_it_fails(cli: Cli, checkpoints: Checkpoints) -> None:
    said = error_of(cli("calibrate", checkpoints.folder(), code=2))
    assert said.startswith("INT8 and FP8 need ranges calibrated on real clips")
    said = error_of(cli("calibrate", checkpoints.folder(), "--calibration-data", demo.clips_path(), code=3))
    assert said.startswith("8 usable calibration clips are too few: 32 are the least")
    cli("calibrate", "demo", "--fp16", code=2)

"""``vivit predict`` and ``vivit check`` as a user meets them."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import Bundles
from click.testing import Result
from command_line import Cli, error_of
from console import BIN, console
from real_clips import NAMES, real_clip
from safetensors.numpy import load_file
from videos import make_video

import vivit_export as ve
from vivit_export.bundle.bench import BenchRecord
from vivit_export.demo import clip_labels, clips_path
from vivit_export.export.checkpoint.load import Checkpoint, hugging_face_pixels
from vivit_export.records import from_json, to_json
from vivit_export.runtime import read_clip

pytestmark = pytest.mark.needs_onnxruntime
LEFT = clips_path() / "left_320x240_25fps.mp4"
QUICK = ("--engine", "onnxruntime-cpu")


@pytest.fixture(scope="module")
def bundle(bundles: Bundles) -> Path:
    return bundles.demo(check=True, num_clips=3, precision="fp16").path


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- predict -----------------------------------------------------------------------------------


def test_one_video_is_a_table(cli: Cli, bundle: Path) -> None:
    result = cli("predict", bundle, LEFT, "--top-k", "3", *QUICK)
    title, *rows = result.stdout.splitlines()
    assert title == str(LEFT)
    assert len(rows) == 3
    assert re.fullmatch(r"  left +\d+\.\d %", rows[0])
    said = result.stderr.splitlines()
    assert re.fullmatch(r"verify the bundle \d\.\d s", said[0])
    assert said[1].startswith("  runs on ONNX Runtime 1.")
    assert re.fullmatch(r"predict 1 video, \d+\.\d\d videos/s, \d\.\d s", said[2])


def test_a_folder_gives_json_lines(cli: Cli, bundle: Path) -> None:
    result = cli("predict", bundle, clips_path(), "-q", *QUICK)
    assert not result.stderr
    found = {Path(str(row["video"])).name: row["top"][0]["label"] for row in lines(result)}  # type: ignore[index]
    assert found == clip_labels()


def test_one_video_as_json_too(cli: Cli, bundle: Path) -> None:
    (row,) = lines(cli("predict", bundle, LEFT, "--json", "-q", "--top-k", "8", *QUICK))
    assert set(row) == {"video", "top"}
    assert sum(entry["probability"] for entry in row["top"]) == pytest.approx(1)  # type: ignore[attr-defined]


def test_verbose_names_what_was_decoded_in_full(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    avi = make_video(tmp_path / "a.avi")
    said = cli("predict", bundle, avi, LEFT, "-v", *QUICK).stderr
    assert f"{avi} is decoded in full: seeking in avi files is not exact" in said
    assert said.count("in full") == 1
    assert "in full" not in cli("predict", bundle, avi, "-v", "--decode", "full", "--readers", "1", *QUICK).stderr


def test_bad_videos_are_listed_and_counted_and_the_others_kept(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    done = subprocess.run(
        [BIN / "vivit", "predict", bundle, text, LEFT, "none.mp4", "-q", *QUICK, "--embedding", "e.safetensors"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["video"] == str(LEFT)
    title, *faults = done.stderr.splitlines()
    assert title == "error: 2 of 3 videos could not be used:"
    assert len(faults) == 2 and faults[0] == f"  {text} is a text file; give a video file"
    assert faults[1] == "  none.mp4 does not exist; give a video file"
    assert load_file(tmp_path / "e.safetensors")["embedding"].shape == (1, 128)


def test_one_bad_video_is_one_sentence(cli: Cli, bundle: Path) -> None:
    result = cli("predict", bundle, "none.mp4", "-q", *QUICK, code=3)
    assert result.stderr == "error: none.mp4 does not exist; give a video file\n"


def test_windows_are_shown_with_their_times(cli: Cli, bundle: Path) -> None:
    result = cli("predict", bundle, LEFT, "--window", "0.8", "--hop", "0.4", "--top-k", "1", "-q", *QUICK)
    assert re.fullmatch(r" +0\.00 s to +0\.80 s   \w+ \d+\.\d %", result.stdout.splitlines()[0])
    in_frames = cli("predict", bundle, LEFT, "--window", "20f", "--hop", "10f", "--top-k", "1", "-q", *QUICK)
    assert in_frames.stdout == result.stdout  # at 25 frames a second


def test_views_short_videos_and_labels(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"motion {i}" for i in range(8)))
    options = ("--stride", "8", "--views", "4x3", "--short", "repeat", "--labels", names, "--top-k", "1")
    result = cli("predict", bundle, LEFT, *options, "-q", *QUICK)
    assert re.fullmatch(r"  motion \d +\d+\.\d %", result.stdout.splitlines()[1])
    refused = cli("predict", bundle, LEFT, "--stride", "8", "-q", *QUICK, code=3)
    assert "the model takes 8, one in 8, out of 57" in refused.stderr
    assert refused.stderr.endswith("; give a longer one, or choose --short repeat or --short loop\n")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--views", "4"), 2, "'4' is not a number of views such as 4x3"),
        (("--views", "4x3"), 2, "several temporal views need sampling=stride"),
        (("--window", "long"), 2, "'long' is not a length such as 2.5 (seconds) or 64f (frames)"),
        (("--hop", "1"), 2, "--hop is the step between windows; give --window too"),
        (("--window", "1", "--hop", "5f"), 2, "--window is in seconds and --hop in frames"),
        (("--window", "0"), 2, "--window 0 must be a number of seconds, 0.001 or more"),
        (("--window", "1e-9"), 2, "--window 1e-09 must be a number of seconds, 0.001 or more"),
        (("--window", "1", "--hop", "1e-7"), 2, "--hop 1e-07 must be a number of seconds, 0.001 or more"),
        (("--window", "0f"), 2, "--window 0f must be a whole number of frames, 1 or more"),
        (("--window", "1", "--views", "1x3"), 2, "--views and --window exclude each other"),
        (("--engine", "nonsense"), 2, "engine 'nonsense' is unknown"),
        (("--engine", "tensorrt"), 7, "the bundle has no TensorRT engine; add one with: vivit build"),
        (("--device", "cuda", "--engine", "onnxruntime"), 7, "onnxruntime was requested but is not available"),
        (("--labels", "none.txt"), 3, "the labels in none.txt cannot be read"),
        (("--embedding", "none/e.safetensors"), 3, "there is no such folder"),
        (("--top-k", "0"), 2, "0 is not in the range x>=1"),
        (("-q", "-v"), 2, "--quiet and --verbose exclude each other"),
    ],
)
def test_predict_refuses(cli: Cli, bundle: Path, options: tuple[str, ...], code: int, said: str) -> None:
    result = cli("predict", bundle, LEFT, *options, code=code)
    assert said in result.stderr and "Traceback" not in result.stderr


def test_an_altered_bundle_predicts_nothing(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    with (copy / "model.onnx").open("r+b") as f:
        f.seek(-1, 2)
        f.write(b"\1")
    for verb in (("predict", copy, LEFT), ("check", copy)):
        assert "model.onnx is not the file" in cli(*verb, "-q", code=3).stderr


def test_predict_needs_neither_torch_nor_transformers(bundle: Path) -> None:
    code = f"""
    import sys
    for name in ("torch", "transformers", "onnxscript", "onnx_ir", "polygraphy", "vivit_export.export.checkpoint.load"):
        sys.modules[name] = None  # any import of it now fails
    from vivit_export.cli import vivit
    vivit(["predict", {str(bundle)!r}, {str(LEFT)!r}, "--engine", "onnxruntime-cpu"])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "left" in done.stdout.splitlines()[1]


@pytest.fixture(scope="module")
def session(bundles: Bundles) -> Iterator[ve.Session]:
    with ve.open_session(bundles.demo(precision="fp32"), prefer="onnxruntime-cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def exact_network(demo_checkpoint: Checkpoint) -> torch.nn.Module:
    """The demo in float64: eager float32 is itself up to 1.5e-5 away from it on these clips."""
    network: torch.nn.Module = copy.deepcopy(demo_checkpoint.network)
    return network.double()


@pytest.mark.parametrize("name", NAMES)
def test_a_video_gives_the_logits_of_hugging_faces_pipeline(
    session: ve.Session, exact_network: torch.nn.Module, name: str
) -> None:
    """From the file to the logits, with PyAV as the one thing in common; decoding is compared elsewhere."""
    path = real_clip(name)
    (result,) = ve.runtime.predict_videos(session, [path])
    assert isinstance(result, ve.runtime.VideoPrediction)
    pixels = hugging_face_pixels(session.contract.preprocess, read_clip(path, session.contract))
    with torch.inference_mode():
        expected = exact_network(torch.from_numpy(pixels).double()).logits[0].numpy()
    assert result.prediction.logits is not None
    np.testing.assert_allclose(result.prediction.logits, expected, rtol=0, atol=1e-5)


# --- check -------------------------------------------------------------------------------------


def test_check_shows_drift_pixels_and_gate(cli: Cli, bundle: Path) -> None:
    shown = cli("check", bundle, "-q", *QUICK).stdout.splitlines()
    assert shown[0].startswith("drift      against eager fp32, PyTorch ") and "(golden), 3 clips: " in shown[0]
    assert sum("top-1 100.0 %" in line for line in shown) == 3
    assert re.fullmatch(
        r"pixels     the graph reproduces the pixel values of the runtime bit for bit \(\d+ values\)", shown[4]
    )
    assert shown[5].startswith("clips      no flip in 3 clips, drift at most 0.0")
    assert shown[7] == (
        "certainty  top-1 agreement is 100 % on 3 clips, and with 95 % confidence from 43.85 % to 100 % on all; 381 "
        "clips like these would settle whether it reaches 99 %"
    )
    assert shown[8].startswith("gate       passed: clear_flips 0, cosine 0.9999, ")


def test_check_as_json(cli: Cli, bundle: Path) -> None:
    facts = json.loads(cli("check", bundle, "--json", "-q", *QUICK).stdout)
    assert facts["passed"] is True
    assert set(facts) == {
        "reference",
        "clips",
        "gate",
        "runs",
        "parity",
        "blocks",
        "taps",
        "view",
        "accuracy",
        "baseline",
        "certainty",
        "passed",
    }
    assert facts["certainty"]["clips_to_settle"] == 381


def test_one_form_at_a_time(cli: Cli, bundle: Path) -> None:
    result = cli("check", bundle, "--json", "--format", "junit", "-q", *QUICK, code=2)
    assert error_of(result) == "--json is --format json; leave it out, or --format junit"


def test_beyond_the_gate_the_report_is_shown_and_the_exit_code_is_5(bundle: Path, tmp_path: Path) -> None:
    done = console("vivit", "check", bundle, "--gate", "max=1e-9", "-q", *QUICK, cwd=tmp_path)
    assert done.returncode == 5
    assert "gate       FAILED: " in done.stdout
    assert re.fullmatch(r"error: drift beyond the gate in ONNX Runtime .*: max \S+ is above 1e-09\n", done.stderr)


def test_check_against_eager_on_clips(cli: Cli, bundle: Path) -> None:
    result = cli("check", bundle, "--clips", LEFT, "--per-block", *QUICK)
    assert "1 clip: left_320x240_25fps.mp4" in result.stdout
    assert re.findall(r"\n {11}(embeddings|layer \d \w+|final norm|logits) ", result.stdout) == [
        "embeddings", *(f"layer {i} {half}" for i in range(4) for half in ("attention", "MLP")), "final norm", "logits"
    ]  # fmt: skip
    assert "\n           no tap is beyond its budget\n" in result.stdout
    assert "the runtime reproduces the pixel values of VivitImageProcessor bit for bit" in result.stdout
    stages = [re.sub(r" \d+\.\d s$", "", line) for line in result.stderr.splitlines()]
    assert "  batches checked: 1, 15; 15 is the most that onnxruntime-cpu runs at once, larger ones are split" in stages
    assert stages[0] == "verify the bundle" and "compare each block on 1 clip" in stages


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--against", "golden", "--clips", "x"), 2, "--clips needs the eager model; use --against eager"),
        (("--against", "silver"), 2, "'silver' is not one of 'golden', 'eager'"),
        (("--gate", "speed=1"), 2, "'speed' is not a metric"),
        (("--gate", "top1=2"), 2, "--gate 'top1=2': no model could pass it; the limit must be above 0, and at most 1"),
        (("--gate", "max=-1"), 2, "--gate 'max=-1': no model could pass it; the limit must be 0 or more, and finite"),
        (("--clips", "none"), 3, "none does not exist"),
        (("--checkpoint", "none/at/all"), 3, "none/at/all does not exist"),
        (("--num-clips", "0"), 2, "--num-clips 0 must be at least 1"),
        (("--engine", "tensorrt-rtx"), 7, "the bundle has no TensorRT for RTX engine"),
    ],
)
def test_check_refuses(cli: Cli, bundle: Path, options: tuple[str, ...], code: int, said: str) -> None:
    result = cli("check", bundle, *options, code=code)
    assert said in result.stderr and "Traceback" not in result.stderr


# --- bench -------------------------------------------------------------------------------------

BENCH = ("--engine", "onnxruntime-cpu", "--rounds", "2", "--warmup", "0")


def test_bench_is_a_table_with_the_steps_below(cli: Cli, bundle: Path) -> None:
    shown = cli("bench", bundle, *BENCH, "--batch", "1,2").stdout.splitlines()
    title = "contender batch p50 ms p90 p95 p99 clips/s speed (spread) peak MB (+ GPU)"
    assert " ".join(shown[0].split()) == title
    assert [line.split()[:2] for line in shown[1:3]] == [["onnxruntime-cpu", "1"], ["onnxruntime-cpu", "2"]]
    assert re.fullmatch(r"onnxruntime-cpu, one clip: decode \S+ ms, preprocess \S+ ms, compute \S+ ms", shown[3])
    assert shown[4].startswith("speed is relative to onnxruntime-cpu; not timed: loading, warm-up, ")


def test_an_engine_that_nobody_named_is_not_said_to_be_requested(cli: Cli, bundle: Path) -> None:
    shown = cli("bench", bundle, "--rounds", "1", "--warmup", "0", "-q").stdout
    assert "requested" not in shown
    assert "tensorrt left out: the bundle has no TensorRT engine; add one with: vivit build " in shown


def test_bench_can_be_kept_in_the_bundle(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    facts = json.loads(cli("bench", copy, *BENCH, "--save", "--json", "-q").stdout)
    kept = ve.read_bundle(copy)
    assert kept.manifest.bench == from_json(BenchRecord, facts, "bench")
    page = (copy / "report.html").read_text()
    assert '<h2 id="speed">Speed</h2>' in page and "<svg " in page and "onnxruntime-cpu, batch 1" in page
    assert json.loads((copy / "report.json").read_text())["bench"] == to_json(kept.manifest.bench)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--batch", "0"), 2, "'0' is not a list of numbers above zero such as 1,4,8"),
        (("--batch", "1,x"), 2, "'1,x' is not a list"),
        (("--against", "jax"), 2, "'jax' is not eager, sdpa or compile"),
        (("--engine", "tensorrt"), 7, "nothing could be timed here: tensorrt: the bundle has no TensorRT engine; add"),
        (("--engine", "tensorrt", *BENCH), 7, "tensorrt cannot be timed: "),
        (
            ("--against", "eager", "--checkpoint", "./none", *BENCH),
            3,
            "eager cannot be timed: ./none does not exist",
        ),
        (("--video", "none.mp4", *BENCH), 3, "none.mp4 does not exist"),
    ],
)
def test_bench_refuses(cli: Cli, bundle: Path, options: tuple[str, ...], code: int, said: str) -> None:
    assert said in cli("bench", bundle, *options, code=code).stderr


# --- export ------------------------------------------------------------------------------------


def test_sampling_is_recorded_in_the_bundle(cli: Cli) -> None:
    options = ("--sampling", "stride", "--stride", "2", "--views", "4x3", "--short", "loop")
    result = cli("export", "demo", "-o", "out", "--target", "onnx", "-q", "--num-clips", "1", *options)
    assert "  clip       8 frames, sampling stride 2, short videos: loop, 4x3 views, 257 tokens" in result.stdout
    clip = ve.read_bundle("out").contract.clip
    assert (clip.sampling, clip.stride, clip.short, clip.views) == ("stride", 2, "loop", (4, 3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sampling", "head", "--stride", "2"), "clip stride=2 with sampling=head"),
        (("--views", "4x3"), "several temporal views need sampling=stride"),
        (("--views", "1x3", "--input", "frames", "--frame-size", "320x240"), "needs a crop to move"),
    ],
)
def test_export_refuses_sampling_that_does_not_go_together(cli: Cli, options: tuple[str, ...], said: str) -> None:
    assert said in cli("export", "demo", "-o", "out", *options, code=2).stderr

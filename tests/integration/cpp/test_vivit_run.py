"""The example program: what it prints, and how it fails."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from bundles import Bundles
from cpp_project import Cpp, flip_a_byte, run

pytestmark = pytest.mark.needs_onnxruntime

WHOLE = "must be a whole number from 1 to 2147483647"
NO_WHOLE_NUMBERS = ("1e9", "3x", "1.5", "-1", "+1", " 1", "", "2147483648", "99999999999999999999", "0x10")
NO_SIZES = ("big", "7", "7x", "x7", "7x7x7", "7x7a", "7x-7", "0x7", "7 x 7", "1e2x7", "7X7", "7x99999999999")


def vivit_run(cpp: Cpp, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([cpp.vivit_run, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_example_shows_labels_and_latency(cpp: Cpp) -> None:
    lines = run(cpp.vivit_run, cpp.bundle, cpp.video, "--repeat", "3", "--top", "2").splitlines()
    assert re.fullmatch(
        r".*up\.npy: 45 frames of 240x426, on ONNX Runtime [\d.]+, CPU, fp32, 3 MultiHeadAttention ops", lines[0]
    )
    assert [line.split()[-1] for line in lines[1:3]] == ["up", "grow"]
    assert re.fullmatch(r" [\d.]+ %  up", lines[1])
    for line, stage in zip(lines[3:], ("preprocess", "inference"), strict=True):
        assert re.fullmatch(rf"{stage} +p50 [\d.]+ ms, p95 [\d.]+ ms, p99 [\d.]+ ms", line)
    raw = run(cpp.vivit_run, cpp.bundle, cpp.video.with_suffix(".rgb"), "--size", "240x426", "--top", "1").splitlines()
    assert raw[1] == lines[1]


def test_the_example_shows_the_values_of_a_regression(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    folder = bundles.copy(tmp_path / "values")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["contract"]["task"] = "regression"
    (folder / "bundle.json").write_text(json.dumps(manifest))
    first = run(cpp.vivit_run, folder, cpp.video, "--top", "1").splitlines()[1]
    assert re.fullmatch(rf" *-?[\d.]+  {manifest['contract']['labels'][0]}", first)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "usage: vivit-run BUNDLE CLIP"),
        (["BUNDLE", "VIDEO", "--frames", "3"], 2, "--frames is not understood; usage: vivit-run BUNDLE CLIP"),
        (["BUNDLE", "VIDEO", "--top", "0"], 2, f"--top {WHOLE}, got 0\n"),
        *((["BUNDLE", "VIDEO", "--repeat", text], 2, f"--repeat {WHOLE}, got {text}\n") for text in NO_WHOLE_NUMBERS),
        (
            ["BUNDLE", "VIDEO", "--engine", "tensorrt"],
            7,
            "this program was built without it; configure with -DVIVIT_TEN",
        ),
        (["BUNDLE", "VIDEO", "--decode", "all"], 2, "--decode must be auto or full, got all\n"),
        (
            ["BUNDLE", "VIDEO", "--decode", "full"],
            2,
            "--decode full needs a program that was built with -DVIVIT_LIBAV=ON\n",
        ),
        (["BUNDLE", "VIDEO", "--identity", "me"], 2, "identity is for require_signature; give both\n"),
        (
            ["BUNDLE", "VIDEO", "--require-signature", "nowhere"],
            3,
            "nowhere cannot be read (No such file or directory); give a PEM file\n",
        ),
        (["BUNDLE", "nothing.npy"], 3, "nothing.npy does not exist; give a video file"),
        (["nowhere", "VIDEO"], 3, "nowhere is not a folder; make a bundle with: vivit-export MODEL -o nowhere"),
        (["BUNDLE", "VIDEO", "--size", "7x7"], 3, "are not whole rgb24 frames of 7x7"),
        *((["BUNDLE", "VIDEO", "--size", text], 2, f"--size must be WxH, got {text}\n") for text in NO_SIZES),
    ],
)
def test_the_example_fails_with_a_sentence_and_a_code(cpp: Cpp, arguments: list[str], code: int, sentence: str) -> None:
    places = {"BUNDLE": str(cpp.bundle), "VIDEO": str(cpp.video)}
    done = vivit_run(cpp, *(places.get(word, word) for word in arguments))
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_the_example_refuses_a_tampered_bundle(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    flip_a_byte(bundles.copy(tmp_path / "bundle"), {})
    done = vivit_run(cpp, tmp_path / "bundle", cpp.video)
    assert done.returncode == 3
    path = tmp_path / "bundle/model.onnx"
    assert done.stderr == f"error: {path} is not the file that bundle.json describes: it was altered or cut short\n"

"""What ``vivit check`` says of labels and of a stored check, and what it writes, as a user meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from bundles import Bundles
from command_line import Cli, error_of
from console import console

import vivit_export as ve
from vivit_export.demo import clip_labels

pytestmark = pytest.mark.needs_onnxruntime
QUICK = ("--engine", "onnxruntime-cpu")


@pytest.fixture(scope="module")
def bundle(bundles: Bundles) -> Path:
    return bundles.demo(check=True, num_clips=3, precision="fp16").path


def test_check_with_known_labels(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(f"{name},{label}\n" for name, label in clip_labels().items()), encoding="utf-8")
    options = ("--labels", labels, "--gate", "accuracy_drop=0.01")
    shown = cli("check", bundle, *options, "-q", *QUICK, code=3)
    assert "is not a clip of this check" in error_of(shown)
    known = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["checks"]["clips"]["names"]
    labels.write_text("".join(f"{name},{clip_labels()[name]}\n" for name in known), encoding="utf-8")
    shown = cli("check", bundle, *options, "-q", *QUICK)
    assert "accuracy   3 clips labelled by labels.csv, with 95 % confidence in brackets: eager fp32, " in shown.stdout
    assert "top-1 100.0 % (43.9 to 100.0)" in shown.stdout and "accuracy_drop 0.01" in shown.stdout
    first = known[0]
    labels.write_text(labels.read_text(encoding="utf-8").replace(f"{first},", f"{first},not "), encoding="utf-8")
    assert "which the model lacks" in error_of(cli("check", bundle, *options, "-q", *QUICK, code=3))
    refused = error_of(cli("check", bundle, "--gate", "accuracy_drop=0.01", "-q", *QUICK, code=2))
    assert refused.endswith("check the bundle with --labels FILE")


def test_a_failed_check_still_writes_its_report_and_saves_its_result(bundle: Path, tmp_path: Path) -> None:
    copy_ = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    page = tmp_path / "drift.json"
    options = ("--gate", "max=1e-9", "--report", page, "--save", "-q", *QUICK)
    done = console("vivit", "check", copy_, *options, cwd=tmp_path)
    assert done.returncode == 5
    told = json.loads(page.read_text(encoding="utf-8"))
    assert told["checks"]["gate"]["max"] == 1e-9 and told["model"]["id"] == "demo"
    saved = ve.read_bundle(copy_).manifest
    assert saved.recheck is not None and not saved.recheck.passed
    assert saved.checks == ve.read_bundle(bundle).manifest.checks
    assert json.loads((copy_ / "report.json").read_text(encoding="utf-8"))["recheck"]["gate"]["max"] == 1e-9
    assert "saved check" in console("vivit", "inspect", copy_, "-q", cwd=tmp_path).stdout


def test_a_check_is_held_to_a_stored_one(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored.json"
    cli("check", bundle, "--report", stored, "-q", *QUICK)
    told = cli("check", bundle, "--baseline", stored, "-q", *QUICK).stdout
    assert "baseline   no regression against stored.json (0 of 3 clips drift more than before and 0 less" in told
    other = json.loads(stored.read_text(encoding="utf-8"))
    other["checks"]["view"]["drift"] = [None, 0.1, 0.1]
    stored.write_text(json.dumps(other), encoding="utf-8")
    cli("check", bundle, "--baseline", stored, "-q", *QUICK)
    assert "are not the 2 of this one" in error_of(
        cli("check", bundle, "--baseline", stored, "--num-clips", "2", "-q", *QUICK, code=3)
    )


def test_clips_that_cannot_be_used_get_one_sentence(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    options = ("--clips", videos, "--checkpoint", "demo", "-q", *QUICK)
    assert "videos holds no video; files with one of these" in error_of(cli("check", bundle, *options, code=3))
    for name in ("a.mp4", "b.mp4"):
        (videos / name).write_bytes(b"\0" * 5000)
    assert "a.mp4 cannot be read as a video" in error_of(cli("check", bundle, *options, code=3))


def test_an_option_that_would_do_nothing_is_refused(cli: Cli, bundle: Path) -> None:
    refused = error_of(cli("check", bundle, "--force", "-q", *QUICK, code=2))
    assert refused == "--force replaces the file that --report writes; give both"
    refused = error_of(cli("check", bundle, "--compare", bundle, "--views", "1x3", code=2))
    assert refused == "--views is for a check that runs; drop it with --compare"

"""``vivit check --ray``: what it prints, saves and refuses. `tests/datasets` runs it on real Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import Bundles, need
from command_line import Cli, error_of, runner

need("pyarrow", "ray", "torch", "transformers", "onnx_ir")

from one_process import use_one_process  # noqa: E402  needs them
from tables import read_table  # noqa: E402

from vivit_export.cli import vivit  # noqa: E402
from vivit_export.demo import clips_path  # noqa: E402

pytestmark = pytest.mark.needs_onnxruntime
ADDRESS = "triton://127.0.0.1:8001/demo"
CLIPS = ("--clips", clips_path(), "--checkpoint", "demo")


def test_a_check_prints_saves_and_writes_what_one_in_this_process_does(
    bundles: Bundles, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_one_process(monkeypatch)
    bundle, out, page = bundles.copy(tmp_path / "bundle", precision="fp16"), tmp_path / "out", tmp_path / "page.html"
    said = cli("check", bundle, *CLIPS, "-q", "-o", out, "--save", "--report", page, "--ray").stdout
    assert "fp16 rounding emulated, batch 1: top-1 100.0 %" in said and "gate       passed: " in said
    assert "no flip in 8 clips" in said and page.read_text().startswith("<!doctype html>")
    saved = json.loads((bundle / "report.json").read_text())["recheck"]
    assert saved["reference"].startswith("eager fp32, PyTorch ") and len(saved["clips"]["names"]) == 8
    rows = read_table(out, "rows")
    assert [Path(row["video"]).name for row in rows] == saved["clips"]["names"]
    assert {"reference_logits", "logits", "emulated_logits", "codec", "fps"} <= set(rows[0])


def test_a_gate_that_is_not_met_ends_with_its_code_and_keeps_the_rows(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_one_process(monkeypatch)
    arguments = (
        "check",
        bundles.demo(precision="fp16").path,
        *CLIPS,
        "-q",
        "-o",
        tmp_path / "out",
        "--gate",
        "max=1e-9",
    )
    said = runner().invoke(vivit, [*map(str, arguments), "--json", "--ray"])
    assert said.exit_code == 5
    assert "drift beyond the gate in ONNX Runtime" in error_of(said)
    report = json.loads(said.stdout)
    assert report["gate"]["max"] == 1e-9 and len(read_table(tmp_path / "out", "rows")) == 8


def test_clips_that_cannot_be_used_end_with_their_code_after_the_report(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_one_process(monkeypatch)
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "broken.mp4").write_bytes(b"no video")
    (clips / "good.mp4").symlink_to(min(clips_path().glob("*.mp4")))
    out = tmp_path / "out"
    arguments = ("check", bundles.demo(precision="fp16").path, "--clips", clips, "--checkpoint", "demo", "-o", out)
    said = runner().invoke(vivit, [*map(str, arguments), "-q", "--ray"])
    assert said.exit_code == 3
    assert (
        error_of(said)
        == f"1 of 2 clips could not be used; {out / 'faults'} names them, and {out / 'rows'} has the others"
    )
    assert "gate       passed: " in said.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*CLIPS, "--ray"), "a run on Ray writes its results to a folder; name it with --output DIR"),
        ((*CLIPS, "-o", "out"), "--output is for a run on Ray; give --ray too"),
        ((*CLIPS, "--gpu-share", "0.5"), "--gpu-share is for a run on Ray; give --ray too"),
        ((*CLIPS, "--ray", "-o", "out", "--gpu-share", "2"), "--gpu-share 2 must be above 0 and at most 1"),
        ((*CLIPS, "--ray", "-o", "out", "--per-block"), "--per-block looks into single clips in one process; leave"),
        (("--ray", "-o", "out"), "a run on Ray checks on videos, against the eager model; name them with --clips"),
        ((*CLIPS, "--against", "golden", "--ray", "-o", "out"), "a run on Ray checks on videos, against the eager"),
        ((*CLIPS, "-o", "out", "--ray", "clips/"), "'clips/' is not the address of a Ray cluster; write HOST:PORT"),
        ((*CLIPS, "-o", "out", "--engine", ADDRESS, "--ray"), "--ray runs engines on files; leave it out for triton:"),
        (("--compare", "other", "-o", "out"), "-o is for a check that runs; drop it with --compare"),
        (("--compare", "other", "--ray"), "--ray is for a check that runs; drop it with --compare"),
        ((*CLIPS, "-o", "out", "--views", "4x3", "--ray"), "several temporal views need sampling=stride"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(
    bundles: Bundles, cli: Cli, arguments: tuple[str | Path, ...], said: str
) -> None:
    assert said in error_of(cli("check", bundles.demo(precision="fp16").path, *arguments, code=2))

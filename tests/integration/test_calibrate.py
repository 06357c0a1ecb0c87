"""``vivit calibrate`` as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from checkpoints import Checkpoints
from command_line import Cli, error_of
from console import BIN

from vivit_export import demo
from vivit_export.bundle import read_bundle


def test_calibrate_prints_a_table_and_an_export_takes_its_file(cli: Cli) -> None:
    printed = cli("calibrate", "demo", "--calibration-clips", "32", "-q").stdout.splitlines()
    assert printed[0] == "ranges.json  int8 ranges by mse, 32 clips: motion clips rendered for the demo"
    assert printed[1].split() == ["layer", "range", "largest", "alpha", "error"]
    assert len(printed) == 2 + 16 + 1
    out = cli("export", "demo", "--int8", "--ranges", "ranges.json", "--target", "onnx", "-o", "out", "-q").stdout
    assert "  quantized  16 of 16 layers by mse, " in out
    assert read_bundle("out").precision == "int8"


def test_calibrate_for_fp8_by_another_method(cli: Cli) -> None:
    cli("calibrate", "demo", "--fp8", "--calibration-method", "minmax", "--calibration-clips", "32", "-o", "f.json")
    found = json.loads(Path("f.json").read_text())
    assert (found["precision"], found["method"], found["clips"]["used"]) == ("fp8", "minmax", 32)
    said = error_of(cli("export", "demo", "--int8", "--ranges", "f.json", "-o", "out", code=3))
    assert said == "f.json holds ranges for fp8; use --fp8 with them"


def test_an_interrupted_calibration_says_that_it_can_be_continued(tmp_path: Path) -> None:
    options = ["--calibration-clips", "256", "--calibration-cache", "cache"]
    command = [str(BIN / "vivit"), "calibrate", "demo", *options]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not (tmp_path / "cache").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    assert said[-3] == "  the clips done so far are kept in cache; the same command continues with the others"
    assert said[-2].startswith("failed: calibrate, ") and said[-2].endswith(" of 256 clips")
    assert said[-1] == "error: interrupted; no ranges were written; run the same command again to continue"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_calibrate_leaves_nothing_where_it_fails(cli: Cli, checkpoints: Checkpoints) -> None:
    said = error_of(cli("calibrate", checkpoints.folder(), code=2))
    assert said.startswith("INT8 and FP8 need ranges calibrated on real clips")
    said = error_of(cli("calibrate", checkpoints.folder(), "--calibration-data", demo.clips_path(), code=3))
    assert said.startswith("8 usable calibration clips are too few: at least 32 are needed")
    cli("calibrate", "demo", "--fp16", code=2)
    said = error_of(cli("calibrate", "demo", "--gpu-share", "0.5", code=2))
    assert said == "--gpu-share is for a run on Ray; give --ray too"

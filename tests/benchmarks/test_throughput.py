"""From file to label: every section runs on tiny inputs, its results are plausible, and the page shows them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from throughput_section import throughput_section

ROOT = Path(__file__).parents[2]


def test_every_section_is_measured_and_written(tmp_path: Path) -> None:
    sizes = ["--tiny", "--rounds", "1", "--files", "4", "--different", "2", "--memory-clips", "200"]
    places = ["--inputs", str(tmp_path / "videos"), "--results", str(tmp_path)]
    command = [sys.executable, str(ROOT / "benchmarks/throughput.py"), *sizes, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "throughput.json").read_text())
    for title, measured in found["long"].items():
        hashes = {contender["sha256"] for contender in measured["contenders"].values()}
        assert len(hashes) == 1, f"{title}: the readers give different frames"
    assert len(found["long"]) == 4
    assert all(f["clips_per_second"] > 0 for f in found["short"]["contenders"].values())
    kinds = ("threads", "processes")
    assert set(found["workers"]["contenders"]) == {f"{n} {kind}" for n in (1, 2) for kind in kinds}
    assert (found["memory"]["clips"], found["memory"]["faults"]) == (200, 2)
    assert len(found["memory"]["resident_bytes"]) == 20
    written = throughput_section(found)
    for words in (
        "10 min 720p, head",
        "ours, to pixel values",
        "processes: clips per s",
        "scan the packets",
        "2 were broken",
    ):
        assert words in written
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0 and json.loads((tmp_path / "throughput.json").read_text()) == found
    once_more = subprocess.run([*command, "--only", "parts"], capture_output=True, text=True, check=False)
    assert once_more.returncode == 0, once_more.stderr
    after = json.loads((tmp_path / "throughput.json").read_text())
    assert list(after["measured_again"]) == ["parts"] and after["memory"] == found["memory"]
    assert throughput_section(after).count("--only parts") == 1

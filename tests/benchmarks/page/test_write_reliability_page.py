"""The reliability page is what the results make of it, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from write_reliability_page import PAGE, RESULTS, SECTIONS, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python benchmarks/page/write_reliability_page.py"
    assert {path.stem for path in RESULTS.glob("*.json")} <= {name for name, _, _ in SECTIONS}


def test_without_results_nothing_is_claimed(tmp_path: Path) -> None:
    written = page(tmp_path)
    assert "|" not in written and written.count("\n- ") == len(SECTIONS)


def test_faults_are_shown(tmp_path: Path) -> None:
    """A soak with wrong answers, one accepted though bad, and growth."""
    told = {
        "requests": 100,
        "threads": 8,
        "outcomes": {"right": 90, "wrong": 6, "accepted though bad": 1, "failed": 3},
        "resident_bytes": {"settled": 100_000_000, "end": 150_000_000, "peak": 1},
        "growth": 0.5,
        "happened": {"client killed in a request": 2},
        "kinds": {"shared": {"resident_bytes": {"settled": 7_000_000, "end": 57_000_000}}},
    }
    environment = json.loads((RESULTS / "fuzz.json").read_text())["environment"]
    (tmp_path / "soak_server.json").write_text(json.dumps({"environment": environment, "server": told}))
    row = next(line for line in page(tmp_path).splitlines() if line.startswith("| tritonserver"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:8] == ["100", "8", "90", "0", "7", "3", "100"]
    assert cells[8:] == ["150", "+50.0 %", "2 x client killed in a request"]
    assert "\n| tritonserver | shared | 7 | 57 |" in page(tmp_path)

"""``vivit check A --compare B``, which runs nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from long_report import long_report

from vivit_export.bundle.manifest import Content
from vivit_export.cli import vivit
from vivit_export.report.html import write_report


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reports: before an upgrade, after it, after one that broke something, and of another model."""
    root = tmp_path_factory.mktemp("runs")
    content = long_report()
    other = replace(content, model=replace(content.model, id="other", weights_sha256={"a": "0" * 64}))
    worse = long_report(worst=0.0812)
    contents: dict[str, Content] = {"before": content, "after": content, "worse": worse, "other": other}
    for name, each in contents.items():
        (root / name).mkdir()
        write_report(root / name, each)
    return root


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(vivit, ["check", *map(str, arguments), "-q"])


def test_text_says_what_differs_and_the_code_whether_the_later_run_is_good(runs: Path) -> None:
    same = check(runs / "before", "--compare", runs / "after/report.json")
    assert (same.exit_code, same.stdout.splitlines()[1][:26]) == (0, "verdict    PASS and PASS: "), same.output
    worse = check(runs / "before", "--compare", runs / "worse")
    assert worse.exit_code == 5 and "(worse)" in worse.stdout
    assert worse.stderr.startswith(
        f"error: {runs / 'worse'} is beyond its gate: the largest logit difference is 8.12 %"
    )
    assert check(runs / "worse", "--compare", runs / "before").exit_code == 0


def test_json_and_files(runs: Path, tmp_path: Path) -> None:
    made = check(runs / "before", "--compare", runs / "worse", "--json", "--report", tmp_path / "drift.html")
    told = json.loads(made.stdout)
    assert made.exit_code == 5 and told["passed"] is False and told["verdict_after"]["state"] == "failed"
    assert "Two runs side by side" in (tmp_path / "drift.html").read_text(encoding="utf-8")
    for name in ("drift.json", "drift.txt"):
        assert check(runs / "before", "--compare", runs / "after", "--report", tmp_path / name).exit_code == 0
    assert json.loads((tmp_path / "drift.json").read_text())["passed"] is True
    assert (tmp_path / "drift.txt").read_text().startswith("google/vivit-b-16x2-kinetics400: ")
    again = check(runs / "before", "--compare", runs / "after", "--report", tmp_path / "drift.txt")
    assert again.exit_code == 3 and "pass --force to replace that file" in again.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--clips", "videos"), 2, "--clips is for a check that runs; drop it with --compare"),
        (("--save",), 2, "--save is for a check that runs; drop it with --compare"),
        (("--format", "junit"), 2, "--compare prints text or json, not --format junit"),
        (("--report", "drift.pdf"), 2, "--report drift.pdf must end in .html, .json, .txt"),
        (("--force",), 2, "--force replaces the file that --report writes; give both"),
    ],
)
def test_what_a_comparison_does_not_have(runs: Path, options: tuple[str, ...], code: int, said: str) -> None:
    made = check(runs / "before", "--compare", runs / "after", *options)
    assert made.exit_code == code and said in made.stderr and not made.stdout


def test_other_models_and_what_is_no_run_are_refused(runs: Path, tmp_path: Path) -> None:
    other = check(runs / "before", "--compare", runs / "other")
    assert other.exit_code == 3 and "compare two runs of one model" in other.stderr
    nothing = check(runs / "before", "--compare", tmp_path)
    assert nothing.exit_code == 3 and "has no bundle.json" in nothing.stderr

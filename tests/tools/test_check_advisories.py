"""Advisories are matched as the OSV schema says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import check_advisories
import pytest


def record(*events: dict[str, str], name: str = "Some_Thing", **more: Any) -> dict[str, Any]:
    affected = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
    }
    return {"id": "PYSEC-1", "modified": "2026-11-01T00:00:00Z", "affected": [affected | more]}


@pytest.mark.parametrize(
    ("events", "version", "is_affected"),
    [
        ([{"introduced": "0"}, {"fixed": "2.0"}], "1.9", True),
        ([{"introduced": "0"}, {"fixed": "2.0"}], "2.0", False),
        ([{"introduced": "0"}, {"fixed": "2.0"}], "2.0rc1", True),
        ([{"fixed": "2.0"}, {"introduced": "0"}], "10.1", False),
        ([{"introduced": "1.5"}, {"last_affected": "1.7"}], "1.7", True),
        ([{"introduced": "1.5"}, {"last_affected": "1.7"}], "1.7.1", False),
        ([{"introduced": "1"}, {"fixed": "1.2"}, {"introduced": "3"}], "4", True),
        ([{"introduced": "1"}, {"fixed": "1.2"}, {"introduced": "3"}], "2", False),
        ([{"introduced": "1"}], "0.9", False),
    ],
)
def test_ranges(events: list[dict[str, str]], version: str, is_affected: bool) -> None:
    assert check_advisories.affects(record(*events), "some-thing", version) is is_affected


def test_listed_versions_count_too_and_other_packages_do_not() -> None:
    listed = record(versions=["3.1"])
    assert check_advisories.affects(listed, "some.thing", "3.1")
    assert not check_advisories.affects(listed, "some-thing", "3.2")
    assert not check_advisories.affects(listed, "thing", "3.1")


def test_commits_say_nothing_of_versions() -> None:
    git = record(ranges=[{"type": "GIT", "events": [{"introduced": "0"}]}])
    assert not check_advisories.affects(git, "some-thing", "1")


def test_the_command_names_what_is_affected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("# pins\nsome-thing==1.0; python_version < '3.11'\nother==2\n")
    (tmp_path / "db").mkdir()
    (tmp_path / "db/a.json").write_text(json.dumps(record({"introduced": "0"}) | {"aliases": ["CVE-1"]}))
    (tmp_path / "db/b.json").write_text(json.dumps(record({"introduced": "0"}) | {"id": "B", "withdrawn": "2026"}))
    (tmp_path / "db/c.yaml").write_text("id: C\nmodified: 2026-11-02\naffected: []\n")
    assert check_advisories.main([str(tmp_path / "db"), str(pins)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "constraints.txt: some-thing 1.0 is affected by PYSEC-1, CVE-1",
        "1 found in 2 records, of which the newest is of 2026-11-02",
    ]
    pins.write_text("other==2\n")
    assert check_advisories.main([str(tmp_path / "db"), str(pins)]) == 0


def test_a_folder_without_records_proves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_advisories.main([str(tmp_path)]) == 2
    assert "has no OSV record" in capsys.readouterr().err

"""The kills find what is wrong: a target that is not whole, leftovers that nobody mentions."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import kills
import pytest

WRITER = """
import os, pathlib, sys, time
target, how = pathlib.Path("target.bin"), sys.argv[1]
part = pathlib.Path(".target.bin.vivit-0123abcd.part")
if part.exists():
    part.unlink()
    if how != "silent":
        print(f"removed {part.resolve()}", file=sys.stderr)
with open(target if how == "torn" else part, "wb") as file:
    for _ in range(8):
        file.write(bytes(4096)); file.flush()
        time.sleep(0.05)
if how != "torn":
    os.replace(part, target)
"""


def whole(path: Path) -> None:
    """Raise an error if a file was not written to its end."""
    if path.stat().st_size != 8 * 4096:
        raise ValueError("it is cut short")


def strikes(home: Path, monkeypatch: pytest.MonkeyPatch, how: str, count: int = 2) -> kills.Outcome:
    """Kill a writer while it writes."""
    (home / "target.bin").write_bytes(bytes(8 * 4096))
    command = kills.Command([sys.executable, "-c", WRITER, how], "target.bin", whole)
    monkeypatch.setattr(kills, "COMMANDS", {"write": command})
    monkeypatch.setattr(kills, "BIN", Path("/"))
    outcome, chance = kills.Outcome(kills=1), random.Random(3)  # the second, so that it strikes while it writes
    for _ in range(count):
        kills.strike(home, "write", outcome, chance, (0.25, 0.2))
        outcome.kills = 1
    return outcome


def test_a_writer_that_keeps_its_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = strikes(tmp_path, monkeypatch, "whole")
    assert (outcome.leftovers, outcome.told, outcome.faults) == (2, 2, [])


def test_leftovers_that_nobody_mentions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fault,) = strikes(tmp_path, monkeypatch, "silent", 1).faults
    assert "only [] were told" in fault


def test_a_target_that_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "hidden", lambda home: [])
    (tmp_path / "target.bin").write_bytes(bytes(8 * 4096))
    monkeypatch.setattr(kills, "BIN", Path("/"))
    monkeypatch.setattr(
        kills, "COMMANDS", {"write": kills.Command([sys.executable, "-c", WRITER, "torn"], "target.bin", whole)}
    )
    outcome = kills.Outcome()
    kills.strike(tmp_path, "write", outcome, random.Random(0), (0.3, 0.2))
    assert outcome.kills == 1 and "it is cut short" in outcome.faults[0]


def test_the_tree_of_a_target_leaves_out_what_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / ".b.vivit-01234567.part").write_bytes(b"b")
    assert kills.tree(tmp_path) == {"a": hashlib.sha256(b"a").hexdigest()}
    assert kills.hidden(tmp_path) == [".b.vivit-01234567.part"]

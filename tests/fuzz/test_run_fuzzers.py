"""Each fuzzer runs for a few seconds here, `make fuzz` for longer; and Python and C++ refuse the same manifests."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import run_fuzzers
from bundles import need
from capabilities import missing
from corpora import inputs
from differential import Readers, is_passed_over
from filelock import FileLock
from mutation import mutated
from shared import shared_folder
from targets import ALL, JSON_TARGETS

SECONDS = int(os.environ.get("VIVIT_FUZZ_SECONDS", "2"))
MUTANTS = 300
NOT_WORD_FOR_WORD = (
    "cannot be read as JSON",  # two parsers
    "must be int",  # C++ has 32 bits for what is not a size
    "tensorrt or tensorrt-rtx",  # C++ reads the names of engines and precisions as text
    "fp32 or fp16",
    "is not possible; outputs are",  # quotes names as they are, NUL and all
)


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with the C++ targets, compiled once for all processes of a run."""
    if shutil.which("apt-get") is None:
        missing("clang", "this machine has no apt")
    home = shared_folder(tmp_path_factory)
    with FileLock(f"{home}/fuzz.lock"):
        return run_fuzzers.build_readers(home / "fuzz")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_fuzzers, "BUILD", tmp_path)
    (tmp_path / "finds").mkdir()
    return tmp_path


def test_the_names_are_those_of_the_targets() -> None:
    assert (*ALL, "both_languages") == run_fuzzers.PYTHON
    assert set(run_fuzzers.PYTHON) >= JSON_TARGETS


def test_all_targets_in_python(room: Path) -> None:
    need("atheris")
    told = run_fuzzers.fuzz("everything", 4 * SECONDS, Path("unused"))
    assert told["finds"] == 0, list((room / "finds").iterdir())
    assert told["executions"] > len(ALL) and told["coverage"] > 500


@pytest.mark.parametrize("name", run_fuzzers.CPP)
def test_each_target_in_cpp(room: Path, readers: Path, name: str) -> None:
    told = run_fuzzers.fuzz(name, SECONDS, readers)
    assert told["finds"] == 0, list((room / "finds").iterdir())
    assert told["executions"] > 100 and told["coverage"] > 50


def test_a_find_is_left_and_counted(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a target that does not exist, so every input is one."""
    need("atheris")
    told = run_fuzzers.fuzz("nonsense", 5, Path("unused"))
    assert told["finds"] == 1


@pytest.fixture(scope="module")
def both(readers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readers]:
    with Readers(readers, tmp_path_factory.mktemp("both")) as opened:
        yield opened


def test_both_languages_accept_what_is_whole(both: Readers) -> None:
    whole = inputs("manifest")["whole.json"]
    assert both.in_python(whole) is None and both.in_cpp(whole) is None


def test_both_languages_refuse_the_same_and_say_the_same(both: Readers) -> None:
    whole = inputs("manifest")["whole.json"]
    said = set()
    for seed in range(MUTANTS):
        data = mutated(_focused(whole, seed), seed, 1 << 20) or b""
        assert both.disagreement(data) is None, data
        ours, theirs = both.in_python(data), both.in_cpp(data)
        if ours and theirs and not is_passed_over(both.folder, ours):
            assert ours == theirs or any(words in ours + theirs for words in NOT_WORD_FOR_WORD), data
            said.add(ours)
    assert len(said) > 50


def _focused(whole: bytes, seed: int) -> bytes:
    """Leave most of what C++ passes over empty, so that the change is more often in what it reads."""
    passed_over = {"checks": None, "bench": None, "search": None}
    return json.dumps({**json.loads(whole), **passed_over}).encode() if seed % 8 else whole

"""Inputs that are kept: seeds as files, all others packed, the same bytes for the same inputs."""

from __future__ import annotations

from pathlib import Path

import corpora
import pytest


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(corpora, "HERE", tmp_path)
    (tmp_path / "seeds/manifest").mkdir(parents=True)
    (tmp_path / "seeds/manifest/a").write_bytes(b"A")
    return tmp_path


def test_seeds_and_what_was_packed_are_given_together(here: Path) -> None:
    path = corpora.keep("manifest", [b"B", b"A", b"C", b"B"])
    first = path.read_bytes()
    assert sorted(corpora.inputs("manifest").values()) == [b"A", b"B", b"C"]
    assert sorted(corpora.inputs("cpp_manifest").values()) == [b"A", b"B", b"C"]
    assert corpora.keep("manifest", [b"C", b"B"]).read_bytes() == first
    corpora.keep("cpp_manifest", [b"D"])
    assert sorted(corpora.inputs("cpp_manifest").values()) == [b"A", b"B", b"C", b"D"]
    assert corpora.inputs("other") == {}


def test_they_are_unpacked_behind_what_is_asked_for(here: Path, tmp_path: Path) -> None:
    folder = corpora.unpack("manifest", tmp_path / "to", b"\x07")
    assert [path.read_bytes() for path in folder.iterdir()] == [b"\x07A"]


def test_the_files_of_the_bundle_that_the_seeds_describe(tmp_path: Path) -> None:
    from vivit_export.bundle import read_bundle

    (corpora.lay_out(tmp_path) / "bundle.json").write_bytes(corpora.inputs("manifest")["whole.json"])
    assert set(read_bundle(tmp_path).manifest.files) == set(corpora.TINY_FILES)

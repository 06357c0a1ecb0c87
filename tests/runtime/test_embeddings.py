"""The file of embeddings: what it holds, and what it never replaces."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Bundles
from safetensors import safe_open
from small_disk import MountDisk

from vivit_export.errors import OutputError, UsageError
from vivit_export.runtime import VideoPrediction
from vivit_export.runtime.embeddings import files_of, require_outputs, save_embeddings
from vivit_export.runtime.session.prediction import Prediction


def made(*spans: tuple[float, float] | None) -> list[VideoPrediction]:
    rows = np.random.default_rng(0).standard_normal((len(spans), 16), np.float32)
    return [VideoPrediction(Path("a.mp4"), Prediction(None, r, ()), s) for r, s in zip(rows, spans, strict=True)]


def test_what_the_bundle_does_not_put_out_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    both, logits = bundles.demo().contract, bundles.demo(outputs=("logits",)).contract
    embedding = bundles.demo(outputs=("embedding",)).contract
    require_outputs(both, tmp_path / "e.safetensors")
    require_outputs(embedding, tmp_path / "e.safetensors")
    require_outputs(both, None)
    with pytest.raises(UsageError, match="no logits, only an embedding; write that with embedding=FILE"):
        require_outputs(embedding, None)
    with pytest.raises(UsageError, match="embedding: this bundle has none"):
        require_outputs(logits, tmp_path / "e.safetensors")
    with pytest.raises(OutputError, match="there is no such folder"):
        require_outputs(both, tmp_path / "none" / "e.safetensors")
    with pytest.raises(UsageError, match="force replaces the file of embedding=FILE; give both"):
        require_outputs(both, None, force=True)


@pytest.mark.parametrize("spans", [(None, None), ((0.0, 1.0), (1.0, 2.5))])
def test_embeddings_are_written_with_what_they_are_of(tmp_path: Path, spans: tuple[Any, Any]) -> None:
    results = made(*spans)
    save_embeddings(tmp_path / "e.safetensors", results)
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]
    with safe_open(tmp_path / "e.safetensors", "np") as found:
        assert json.loads(found.metadata()["videos"]) == ["a.mp4", "a.mp4"]
        for row, result in zip(found.get_tensor("embedding"), results, strict=True):
            np.testing.assert_array_equal(row, result.prediction.embedding)
        assert ("span_seconds" in found.keys()) == (spans[0] is not None)  # noqa: SIM118 - it is not a dict
        if spans[0] is not None:
            assert found.get_tensor("span_seconds").tolist() == [list(span) for span in spans]


def test_a_file_that_exists_is_replaced_by_force_alone(bundles: Bundles, tmp_path: Path) -> None:
    path, contract = tmp_path / "notes.txt", bundles.demo().contract
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt exists; pass force to replace that file"):
        require_outputs(contract, path)
    with pytest.raises(OutputError, match=r"notes\.txt exists; pass force to replace that file"):
        save_embeddings(path, made(None))
    assert path.read_text() == "mine"
    require_outputs(contract, path, force=True)
    save_embeddings(path, made(None), force=True)
    assert path.read_bytes() != b"mine"


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("mine")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OutputError, match=r"link exists"):
        save_embeddings(tmp_path / "link", made(None))
    save_embeddings(tmp_path / "link", made(None), force=True)
    assert os.readlink(tmp_path / "link") == "real"
    assert (tmp_path / "real").read_bytes() != b"mine"


def test_no_input_is_replaced_even_by_force(bundles: Bundles, tmp_path: Path) -> None:
    bundle = bundles.demo()
    video, twin = tmp_path / "a.mp4", tmp_path / "twin.mp4"
    video.write_bytes(b"video")
    twin.hardlink_to(video)
    inputs = [video, tmp_path / "gone.mp4", *files_of(bundle)]
    for path in (video, twin, bundle.model, bundle.path / "bundle.json"):
        with pytest.raises(OutputError, match=r"^embedding=.* is a file to read from; choose another name$"):
            require_outputs(bundle.contract, path, force=True, inputs=inputs)
    assert files_of("triton://localhost:8001/demo") == []


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device"])
def test_what_is_no_file_is_never_replaced(bundles: Bundles, tmp_path: Path, kind: str) -> None:
    path = {"a device": Path("/dev/null")}.get(kind, tmp_path / "taken")
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    before = path.stat()
    with pytest.raises(OutputError, match=f"is {kind}, not a file that can be replaced"):
        require_outputs(bundles.demo().contract, path, force=True)
    with pytest.raises(OutputError, match=f"is {kind}, not a file that can be replaced"):
        save_embeddings(path, made(None), force=True)
    assert (path.stat().st_mode, path.stat().st_ino) == (before.st_mode, before.st_ino)


def test_a_full_disk_leaves_nothing(small_disk: MountDisk) -> None:
    disk = small_disk(16)
    rows = np.zeros((1, 100_000), np.float32)
    with pytest.raises(OutputError, match="was not written: the disk is full"):
        save_embeddings(disk / "e", [VideoPrediction(Path("a.mp4"), Prediction(None, rows[0], ()))])
    assert not any(disk.iterdir())

"""A file of embeddings that grows on disk, and is whole or not there."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from small_disk import MountDisk

from vivit_export.errors import OutputError, UsageError
from vivit_export.runtime.embedding_file import EmbeddingFile
from vivit_export.runtime.session.prediction import Prediction


def row(number: int, width: int = 16) -> Prediction:
    return Prediction(None, np.full(width, number, np.float32), ())


def test_live_video_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    with EmbeddingFile(path, source='rtsp://a/"b"') as file:
        for number in range(5):
            file.add(row(number), 'rtsp://a/"b"', (number, number + 0.5))
            assert [p.name for p in tmp_path.iterdir()] == []  # until it is complete
        file.save()
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]
    with safe_open(path, "np") as found:
        assert found.metadata() == {"source": 'rtsp://a/"b"'}
        assert found.get_tensor("embedding")[:, 0].tolist() == [0, 1, 2, 3, 4]
        assert found.get_tensor("span_seconds").tolist() == [[n, n + 0.5] for n in range(5)]


@pytest.mark.parametrize("names", [["a.mp4"], ['ü "q" \\ \n.mp4', "b.mp4", "b.mp4"]])
def test_videos_are_named_one_by_one(tmp_path: Path, names: list[str]) -> None:
    with EmbeddingFile(tmp_path / "e", force=True) as file:
        for number, name in enumerate(names):
            file.add(row(number), name, None)
        file.save()
    with safe_open(tmp_path / "e", "np") as found:
        assert json.loads(found.metadata()["videos"]) == names
        assert list(found.keys()) == ["embedding"]


def test_what_is_not_saved_leaves_nothing(tmp_path: Path) -> None:
    with EmbeddingFile(tmp_path / "e") as file:
        file.add(row(0), "a", None)
    with EmbeddingFile(tmp_path / "e") as file:
        file.save()  # no row
    assert not any(tmp_path.iterdir())


def test_memory_does_not_grow(tmp_path: Path) -> None:
    prediction = row(1, 1024)
    with EmbeddingFile(tmp_path / "e", source="it") as file:
        tracemalloc.start()
        for number in range(5000):
            file.add(prediction, "it", (number, number + 1))
        file.save()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (tmp_path / "e").stat().st_size > 20_000_000 and peak < 4_000_000


def test_a_disk_that_fills_up_leaves_nothing(small_disk: MountDisk) -> None:
    disk = small_disk(64)

    def fill() -> None:
        with EmbeddingFile(disk / "e") as file:
            for _ in range(1000):
                file.add(row(0, 1024), "a", None)
            file.save()

    with pytest.raises(OutputError, match="was not written: the disk is full"):
        fill()
    assert not any(disk.iterdir())


def test_a_bundle_without_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no embedding"), EmbeddingFile(tmp_path / "e") as file:
        file.add(Prediction(np.zeros(1, np.float32), None, ("a",)), "a", None)
    assert not any(tmp_path.iterdir())

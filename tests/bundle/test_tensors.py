"""Files of tensors: a disk that refuses one is the same error as for any other file."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file
from small_disk import MountDisk

from vivit_export.bundle import tensors
from vivit_export.bundle.tensors import save_tensors


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        "frames": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "logits": np.ones((3, 2), np.float32),
    }
    save_tensors(arrays, tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_a_full_disk_is_an_error_of_the_disk(small_disk: MountDisk) -> None:
    path = small_disk(16) / "a.safetensors"
    with pytest.raises(OSError, match="No space left on device") as told:
        save_tensors({"frames": np.zeros(1 << 16, np.uint8)}, path)
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(path))


@pytest.mark.parametrize(
    "said",
    [
        "I/O error: No space left on device (os error 28)",
        'IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })',  # 0.4.5
    ],
)
def test_every_version_of_safetensors_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    def refuse(*_: object) -> None:
        raise SafetensorError(f"Error while serializing: {said}")

    monkeypatch.setattr(tensors, "save_file", refuse)
    with pytest.raises(OSError, match="No space left on device") as told:
        save_tensors({}, tmp_path / "a.safetensors")
    assert told.value.errno == errno.ENOSPC


def test_so_is_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_tensors({"frames": np.zeros(1, np.uint8)}, tmp_path / "none/a.safetensors")


def test_a_fault_of_ours_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise SafetensorError("Error while serializing: InvalidTensorView")

    monkeypatch.setattr(tensors, "save_file", refuse)
    with pytest.raises(SafetensorError, match="InvalidTensorView"):
        save_tensors({}, tmp_path / "a.safetensors")

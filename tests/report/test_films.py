"""Pictures of golden clips: the right frames, and nothing from a file that is something else."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from long_report import CONTRACT, save_golden
from PIL import Image
from safetensors.numpy import load_file, save_file

from vivit_export.report.films import films


def opened(address: str) -> Image.Image:
    head, _, data = address.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(BytesIO(base64.b64decode(data)))


def test_a_picture_has_four_frames_of_its_clip_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    save_golden(path, 3)
    found = films(path, CONTRACT, 3, {0, 2, 7})
    assert list(found) == [0, 2]
    picture, frames = opened(found[2]), load_file(path)["frames"][2]
    assert picture.size == (4 * 72, 54)  # frames of 64x48
    for place, index in enumerate((0, 2, 5, 7)):
        shown = np.asarray(picture.crop((72 * place, 0, 72 * place + 72, 54)), np.float64)
        expected = np.asarray(Image.fromarray(frames[index]).resize((72, 54), Image.Resampling.BILINEAR), np.float64)
        assert np.abs(shown - expected).mean() < 6  # of 255: JPEG


def test_a_file_with_some_of_the_clips_has_pictures_of_these(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    save_golden(path, 3)
    some, every = films(path, CONTRACT, 10, range(10)), films(path, CONTRACT, 3, range(3))
    assert list(some) == [0, 3, 6] and list(some.values()) == list(every.values())


def test_only_the_frames_that_are_shown_are_read(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    with path.open("wb") as file:  # 4,000 clips, of which the disk holds nothing
        shape = [4000, 8, 48, 64, 3]
        header = f'{{"frames":{{"dtype":"U8","shape":{shape},"data_offsets":[0,{int(np.prod(shape))}]}}}}'.encode()
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + int(np.prod(shape)))
    assert list(films(path, CONTRACT, 4000, {3999})) == [3999]


@pytest.mark.parametrize("name", ["missing", "text", "floats", "another size"])
def test_nothing_from_another_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "golden.safetensors"
    if name == "text":
        path.write_text("clips")
    elif name == "floats":
        save_file({"frames": np.zeros((2, 8, 48, 64, 3), np.float32)}, path)
    elif name == "another size":
        save_file({"frames": np.zeros((2, 8, 48, 63, 3), np.uint8)}, path)
    assert films(path, CONTRACT, 2, {0, 1}) == {}

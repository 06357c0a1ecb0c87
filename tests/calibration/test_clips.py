"""Which clips a calibration takes, in which order, and what it says about the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from vivit_export import demo
from vivit_export.calibration.clips import CalibrationClips, digest, find_calibration_clips
from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.runtime import Preprocessor, read_clip

CropsFile = Callable[..., Path]


def names(clips: CalibrationClips) -> list[str]:
    return [name for name, _ in clips.read()]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo.clips_path(), tmp_path / "videos"))


def test_videos_are_read_by_the_contract(contract: Contract, videos: Path) -> None:
    found = dict(find_calibration_clips(videos, contract, fewest=8).read())
    assert sorted(found) == sorted(p.name for p in videos.glob("*.mp4"))
    preprocessor = Preprocessor(contract.clip, contract.preprocess)
    for name, crops in found.items():
        np.testing.assert_array_equal(crops, preprocessor.crops(read_clip(videos / name, contract)))


def test_a_list_names_videos_relative_to_itself(contract: Contract, videos: Path) -> None:
    (videos / "list.txt").write_text("# the good ones\nleft_320x240_25fps.mp4\n\nup_240x426_30fps.mp4  # portrait\n")
    assert sorted(names(find_calibration_clips(videos / "list.txt", contract, fewest=1))) == [
        "left_320x240_25fps.mp4",
        "up_240x426_30fps.mp4",
    ]


def test_crops_come_from_safetensors_such_as_a_bundles(contract: Contract, crops_file: CropsFile) -> None:
    path = crops_file(5)
    expected = load_file(path)["frames"]
    for name, crops in find_calibration_clips(path, contract, fewest=1).read():
        np.testing.assert_array_equal(crops, expected[int(name[len("crops.safetensors[") : -1])])


def test_several_places_are_shuffled_together_by_the_seed(
    contract: Contract, crops_file: CropsFile, videos: Path
) -> None:
    places = [crops_file(20), videos]
    orders = [names(find_calibration_clips(places, contract, seed=seed, fewest=1)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert len(orders[0]) == 28
    assert names(find_calibration_clips(places, contract, limit=5, fewest=1)) == orders[0][:5]


def test_the_hash_is_that_of_content_and_order(contract: Contract, crops_file: CropsFile, tmp_path: Path) -> None:
    path = crops_file(40)
    moved = Path(shutil.copy(path, tmp_path / "elsewhere.safetensors"))
    first = find_calibration_clips(path, contract).sha256
    assert first == find_calibration_clips(moved, contract).sha256
    assert first != find_calibration_clips(path, contract, seed=1).sha256
    assert first != find_calibration_clips(path, contract, limit=39).sha256
    content = load_file(path)["frames"]
    content[0, 0, 0, 0, 0] ^= 1
    save_file({"frames": content}, moved)
    assert first != find_calibration_clips(moved, contract).sha256


# --- what cannot be used -----------------------------------------------------------------------


def test_too_few_are_refused_before_any_is_read(contract: Contract, crops_file: CropsFile) -> None:
    with pytest.raises(
        ClipError, match=r"31 usable calibration clips are too few: at least 32 are needed, 256 or more"
    ):
        find_calibration_clips(crops_file(31), contract)
    assert ClipError.exit_code == 3


def test_duplicates_and_single_colors_are_set_aside_with_their_reason(
    contract: Contract, crops_file: CropsFile
) -> None:
    def change(crops: npt.NDArray[np.uint8]) -> None:
        crops[7], crops[9] = crops[3], 128

    clips = find_calibration_clips(crops_file(40, change), contract)
    used = names(clips)
    assert len(used) == 38
    reasons = sorted(clips.set_aside.values())
    assert reasons[0].startswith("it is the same clip as crops.safetensors[")
    assert reasons[1] == "it shows one color throughout"


def test_a_few_unreadable_videos_are_tolerated_and_named(contract: Contract, videos: Path) -> None:
    (videos / "broken.mp4").write_bytes(b"not a video")
    clips = find_calibration_clips(videos, contract, fewest=8)
    assert "broken.mp4" not in names(clips)
    assert "is a text file" in clips.set_aside["broken.mp4"]


def test_more_than_a_tenth_unusable_is_refused(contract: Contract, crops_file: CropsFile) -> None:
    def change(crops: npt.NDArray[np.uint8]) -> None:
        crops[:5] = 7

    clips = find_calibration_clips(crops_file(40, change), contract)
    said = r"5 of 40 calibration clips cannot be used, more than one in ten: .*one color.*; and 2 more; remove or"
    with pytest.raises(ClipError, match=said):
        names(clips)


def test_too_few_left_are_refused_at_the_end(contract: Contract, crops_file: CropsFile) -> None:
    def change(crops: npt.NDArray[np.uint8]) -> None:
        crops[:2] = 7

    clips = find_calibration_clips(crops_file(33, change), contract)
    with pytest.raises(ClipError, match=r"31 usable calibration clips \(2 set aside: .*\) are too few"):
        names(clips)


def test_a_run_continues_after_the_clips_that_are_done(contract: Contract, crops_file: CropsFile) -> None:
    def change(crops: npt.NDArray[np.uint8]) -> None:
        crops[5], crops[30] = 9, crops[31]

    path = crops_file(40, change)
    whole = list(find_calibration_clips(path, contract).read())
    half = find_calibration_clips(path, contract)
    reader = half.read()
    done = [next(reader) for _ in range(20)]
    rest = find_calibration_clips(path, contract)
    rest.set_aside.update(half.set_aside)
    continued = [*done, *rest.read([digest(crops) for _, crops in done])]
    assert [name for name, _ in continued] == [name for name, _ in whole]
    assert len(whole) == 38


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((40, 4, 16, 17, 3), np.uint8), r"it has U8 \(40, 4, 16, 17, 3\)"),
        (np.zeros((40, 4, 16, 16, 3), np.float32), r"it has F32"),
    ],
)
def test_crops_of_another_shape_or_type_are_refused(
    contract: Contract, tmp_path: Path, array: npt.NDArray[np.generic], said: str
) -> None:
    save_file({"frames": array}, tmp_path / "crops.safetensors")
    with pytest.raises(ClipError, match=rf"must hold frames, uint8 \(N, 4, 16, 16, 3\).*{said}"):
        find_calibration_clips(tmp_path / "crops.safetensors", contract)


def test_files_that_are_not_what_they_seem(contract: Contract, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"junk")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "wrong.txt").write_text("missing.mp4\n")
    save_file({"pixels": np.zeros(3, np.uint8)}, tmp_path / "b.safetensors")
    for name, said in (
        ("a.safetensors", "cannot be read as safetensors"),
        ("b.safetensors", "no such tensor"),
        ("empty.txt", "lists no videos"),
        ("wrong.txt", r"lists .*missing\.mp4, which is not a file"),
        ("nowhere", "does not exist"),
    ):
        with pytest.raises(ClipError, match=said):
            find_calibration_clips(tmp_path / name, contract)

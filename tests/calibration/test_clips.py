"""Which clips a calibration takes, in which order, and what it says about the others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from made_clips import blurred
from safetensors.numpy import load_file, save_file

from vivit_export import demo
from vivit_export.calibration.clips import CalibrationClips, digest, find_calibration_clips
from vivit_export.calibration.clips import _is_noise as is_noise
from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.runtime import Preprocessor, read_clip
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.clips.views import read_crops

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


def test_class_folders_with_equal_names_are_told_apart(contract: Contract, videos: Path, tmp_path: Path) -> None:
    """Each name stands for one file, and for the same one wherever the data lies, from within or without."""
    data = tmp_path / "data"
    for folder, video in (("jump", "left_320x240_25fps.mp4"), ("run", "up_240x426_30fps.mp4"), ("sit", "")):
        (data / folder).mkdir(parents=True)
        (data / folder / "clip_0.mp4").write_bytes((videos / video).read_bytes() if video else b"not a video")
    clips = find_calibration_clips(data, contract, fewest=2)
    assert sorted(names(clips)) == ["jump/clip_0.mp4", "run/clip_0.mp4"]
    assert clips.set_aside == {"sit/clip_0.mp4": "it is a text file; give a video file"}


def test_one_clip_under_many_names_counts_once(contract: Contract, videos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in "ab":
        (data / folder).mkdir(parents=True)
        shutil.copy(videos / "left_320x240_25fps.mp4", data / folder / "clip_0.mp4")
    clips = find_calibration_clips(data, contract, fewest=1)
    (name,) = names(clips)
    assert clips.set_aside == {other: f"it is the same clip as {name}" for other in {*"ab"} - {name[0]} for other in
                               [f"{other}/clip_0.mp4"]}  # fmt: skip


@pytest.mark.parametrize("relative", [False, True])
def test_reasons_do_not_say_where_the_data_lies(
    contract: Contract, videos: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    """They are written into bundles, which must not differ by the folder that they were exported from."""
    (videos / "broken.mp4").write_bytes(b"not a video")
    monkeypatch.chdir(videos.parent)
    clips = find_calibration_clips(Path("videos") if relative else videos, contract, fewest=8)
    names(clips)
    assert list(clips.set_aside) == ["broken.mp4"]
    assert not [reason for reason in clips.set_aside.values() if "videos" in reason or "/" in reason]


def test_an_unreadable_file_is_set_aside(contract: Contract, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vivit_export.calibration import clips as module

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "sha256_of", refuse)
    assert len(find_calibration_clips(videos, contract, fewest=8).sha256) == 64


@pytest.mark.parametrize("shape", [(2, 224, 224), (4, 16, 16)])
def test_noise_is_told_from_pictures(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert is_noise(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        assert is_noise(rng.normal(128, 40, (*shape, 3)).clip(0, 255).astype(np.uint8))
        assert not is_noise(blurred(rng, 1, (*shape, 3))[0])


def test_noise_is_refused(contract: Contract, crops_file: CropsFile) -> None:
    def change(crops: npt.NDArray[np.uint8]) -> None:
        crops[:] = np.random.default_rng(0).integers(0, 256, crops.shape, dtype=np.uint8)

    with pytest.raises(ClipError, match=r"2 of 40 .* cannot be used|it is random noise: neighboring pixels have"):
        names(find_calibration_clips(crops_file(40, change), contract))


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


def test_the_hash_is_that_of_content_order_and_names(contract: Contract, crops_file: CropsFile, tmp_path: Path) -> None:
    path = crops_file(40)
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.copy(path, tmp_path / "elsewhere"))
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
    clips_of_one_run = find_calibration_clips(path, contract)
    whole = list(clips_of_one_run.read())
    half = find_calibration_clips(path, contract)
    reader = half.read()
    done = [next(reader) for _ in range(20)]
    rest = find_calibration_clips(path, contract)
    rest.set_aside.update(half.set_aside)
    continued = [*done, *rest.read([digest(crops) for _, crops in done])]
    assert [name for name, _ in continued] == [name for name, _ in whole]
    assert len(whole) == 38
    assert half.set_aside | rest.set_aside == clips_of_one_run.set_aside


@pytest.mark.parametrize("readers", [1, 3, None])
def test_any_number_of_readers_gives_the_same_clips_and_few_are_held(
    contract: Contract, videos: Path, monkeypatch: pytest.MonkeyPatch, readers: int | None
) -> None:
    from vivit_export.calibration import clips as module

    (videos / "broken.mp4").write_bytes(b"not a video")
    expected = list(find_calibration_clips(videos, contract, fewest=8, readers=1).read())
    begun: list[Path] = []

    def counted(path: Path, *arguments: Any) -> npt.NDArray[np.uint8]:
        begun.append(path)
        return read_crops(path, *arguments)

    monkeypatch.setattr(module, "read_crops", counted)
    clips = find_calibration_clips(videos, contract, fewest=8, reading=Reading("full"), readers=readers)
    for place, ((name, crops), (other, same)) in enumerate(zip(clips.read(), expected, strict=True)):
        assert name == other
        np.testing.assert_array_equal(crops, same)
        assert len(begun) - place <= 2 * (readers or os.cpu_count() or 1) + len(clips.set_aside)
    assert clips.set_aside == {"broken.mp4": "it is a text file; give a video file"}

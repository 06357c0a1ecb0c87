"""The clips of a check: decoded, sampled and cropped as serving does it, each kind of input from the same frames."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from small_disk import MountDisk
from videos import make_video, with_frames

from vivit_export.bundle.checks import Parity
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.demo import clips_path
from vivit_export.errors import ClipError, OutputError
from vivit_export.export import check, clips
from vivit_export.export.clips import load_check_clips, num_bundled_clips, read_check_clips
from vivit_export.runtime import Preprocessor, read_clip

CLIP = Clip(8, 32, 40, (2, 8, 8))
CONTRACT = Contract(
    CLIP,
    Preprocess(shortest_edge=48, crop_size=(32, 40)),
    IO("crops", (Tensor("frames", "uint8", ("batch", 8, 32, 40, 3)),), ()),
)
NAMES = sorted(path.name for path in clips_path().glob("*.mp4"))


def test_without_a_folder_the_demos_clips_are_read() -> None:
    found = load_check_clips(CONTRACT, None, 2)
    assert found.names == tuple(NAMES[:2])
    assert found.source == "bundled demo clips, sampled to the shape of this checkpoint"
    preprocessor = Preprocessor(CONTRACT.clip, CONTRACT.preprocess)
    for row, name in enumerate(found.names):
        frames = read_clip(clips_path() / name, CONTRACT)
        np.testing.assert_array_equal(found.crops[row], preprocessor.crops(frames))
    assert found.frames is found.crops
    for pixels, name in zip(found.for_input("pixels"), found.names, strict=True):
        np.testing.assert_array_equal(pixels, preprocessor(read_clip(clips_path() / name, CONTRACT))[0])
    assert found.for_input("crops") is found.crops


@pytest.mark.parametrize(("limit", "count"), [(None, 3), (1, 1), (9, 3)])
def test_a_folder_is_named_but_its_place_is_not(tmp_path: Path, limit: int | None, count: int) -> None:
    folder = tmp_path / "my videos"
    folder.mkdir()
    for name in NAMES[3:6]:
        shutil.copy(clips_path() / name, folder)
    found = load_check_clips(CONTRACT, folder, limit)
    assert (found.source, found.names) == ("my videos", tuple(NAMES[3 : 3 + count]))
    assert len(found.crops) == count


def test_the_headers_of_the_users_videos_are_told_in_the_order_of_the_names(tmp_path: Path) -> None:
    shutil.copy(clips_path() / NAMES[0], tmp_path / "b.mp4")
    make_video(tmp_path / "a.mp4", 12)
    found = load_check_clips(CONTRACT, tmp_path, None).checked
    assert found.names == ("a.mp4", "b.mp4") and len(found.videos) == 2
    assert found.videos[0] is not None and (found.videos[0].fps, found.videos[0].seconds) == (25, 0.48)
    assert load_check_clips(CONTRACT, None, 1).checked.videos == ()


def test_class_folders_with_equal_names_are_told_apart(tmp_path: Path) -> None:
    for label, name in zip(("run", "sit"), NAMES, strict=False):
        (tmp_path / label).mkdir()
        shutil.copy(clips_path() / name, tmp_path / label / "clip_0.mp4")
    assert load_check_clips(CONTRACT, tmp_path, None).names == ("run/clip_0.mp4", "sit/clip_0.mp4")
    assert load_check_clips(CONTRACT, tmp_path / "run/clip_0.mp4", None).names == ("clip_0.mp4",)


def test_a_graph_of_whole_frames_gets_them_in_its_cameras_size() -> None:
    io = IO("frames", (Tensor("frames", "uint8", ("batch", 8, 90, 120, 3)),), (), (90, 120))
    found = load_check_clips(dataclasses.replace(CONTRACT, io=io), None, 1)
    assert found.frames.shape == (1, 8, 90, 120, 3) and found.for_input("frames") is found.frames
    stored = read_clip(clips_path() / NAMES[0], CONTRACT)
    for got, frame in zip(found.frames[0], stored, strict=True):
        np.testing.assert_array_equal(got, np.asarray(Image.fromarray(frame).resize((120, 90))))
    crops = Preprocessor(CONTRACT.clip, CONTRACT.preprocess).crops(found.frames[0])
    np.testing.assert_array_equal(found.crops[0], crops)


def test_a_bundled_clip_that_is_too_short_is_rendered_longer_and_one_of_the_user_is_refused(tmp_path: Path) -> None:
    longer = with_frames(CONTRACT, 64)
    (name,), (frames,) = read_check_clips(longer, None, 1)
    assert name == NAMES[0] and frames.shape == (64, 32, 40, 3)
    assert np.unique(frames.reshape(64, -1), axis=0).shape[0] == 64, "frames differ: none is repeated"
    make_video(tmp_path / "short.mp4", 10)
    with pytest.raises(ClipError, match=r"short\.mp4 has 10 frames but the model takes 64"):
        list(read_check_clips(longer, tmp_path, None)[1])


@pytest.mark.parametrize(("flops", "count"), [(1e9, 2000), (250e9, 8), (0.9e12, 2), (1e15, 1)])
def test_a_large_network_is_checked_on_fewer_clips(flops: float, count: int) -> None:
    assert num_bundled_clips(flops) == count


def test_what_is_ignored_in_the_users_folder_is_told_and_in_ours_not(tmp_path: Path) -> None:
    notes: list[str] = []
    load_check_clips(CONTRACT, None, 1, notes.append)
    assert notes == []
    (tmp_path / "a.mp4").symlink_to(next(clips_path().glob("left*")))
    (tmp_path / "b.heic").touch()
    load_check_clips(CONTRACT, tmp_path, None, notes.append)
    assert notes == [f"ignored in {tmp_path}: 1 file without the suffix of a video (b.heic)"]


def test_the_processor_sees_32_clips_of_as_many_sizes_as_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(64, 48)] * 30 + [(48, 64)] * 3 + [(80, 60)]
    for number, size in enumerate(sizes):
        make_video(tmp_path / f"{number:02}.mp4", 8, size=size)
    seen: list[tuple[int, int]] = []

    def compared(_: Contract, frames: Iterable[npt.NDArray[np.uint8]]) -> Parity:
        seen.extend((clip.shape[2], clip.shape[1]) for clip in frames)
        return Parity("ours", "theirs", 1, 0, 0.0)

    monkeypatch.setattr(check, "compare_processor", compared)
    for limit, expected in ((None, [*sizes[:28], *sizes[30:]]), (31, sizes[:31]), (1, sizes[:1])):
        seen.clear()
        check.processor_parity(CONTRACT, tmp_path, load_check_clips(CONTRACT, tmp_path, limit).checked)
        assert seen == expected
    seen.clear()
    check.processor_parity(CONTRACT, None, load_check_clips(CONTRACT, None, 3).checked)
    assert len(seen) == 3


@pytest.mark.field_case("transformers 26993", "Detectron 910")
def test_many_frames_are_on_disk_in_a_file_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = load_check_clips(CONTRACT, None, 3)
    size = in_memory.frames.nbytes
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for most, is_mapped in ((size, False), (size - 1, True)):
        monkeypatch.setattr(clips, "_MOST_IN_MEMORY", most)
        found = load_check_clips(CONTRACT, None, 3)
        assert isinstance(found.frames.base, np.memmap) is is_mapped
        np.testing.assert_array_equal(found.frames, in_memory.frames)
        np.testing.assert_array_equal(found.frames[[2, 0]], in_memory.frames[[2, 0]])
        for mine, other in zip(found.for_input("pixels"), in_memory.for_input("pixels"), strict=True):
            np.testing.assert_array_equal(mine, other)
        assert not list(tmp_path.iterdir())


def test_a_disk_without_room_for_the_frames_is_told(small_disk: MountDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = small_disk(64)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    monkeypatch.setattr(clips, "_MOST_IN_MEMORY", 0)
    load_check_clips(CONTRACT, None, 2)  # 60 KiB
    said = rf"{disk} has no room for the frames of 3 clips, 0\.0 GiB \(No space left .*\); .*, or check with ray$"
    with pytest.raises(OutputError, match=said):
        load_check_clips(CONTRACT, None, 3)
    assert not list(disk.iterdir())

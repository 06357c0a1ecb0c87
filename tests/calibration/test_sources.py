"""Where calibration clips are found, and what they are called."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from vivit_export.calibration.clips import find_calibration_clips
from vivit_export.calibration.sources import find_sources
from vivit_export.contract import Contract
from vivit_export.errors import ClipError

CropsFile = Callable[..., Path]


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def named(contract: Contract, *places: Path) -> dict[str, Path]:
    return {source.name: source.path for source in find_sources(places, contract)}


def test_a_name_is_the_path_inside_of_the_data(contract: Contract, tmp_path: Path, crops_file: CropsFile) -> None:
    one, two = make(tmp_path / "one", "a/x.mp4", "b/x.mp4"), make(tmp_path / "two", "x.mp4")
    crops = crops_file(2)
    assert list(named(contract, one)) == ["a/x.mp4", "b/x.mp4"]
    assert list(named(contract, one / "a/x.mp4")) == ["x.mp4"]
    assert list(named(contract, one, two)) == ["one/a/x.mp4", "one/b/x.mp4", "two/x.mp4"]
    assert list(named(contract, crops)) == ["crops.safetensors[0]", "crops.safetensors[1]"]


def test_what_a_folder_holds_besides_is_told(contract: Contract, tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", "a.mp4", "b.bin", ".hidden.mp4"), make(tmp_path / "two", "c.mp4")
    notes: list[str] = []
    find_calibration_clips([one, two], contract, fewest=1, note=notes.append)
    ignored = "1 file without the suffix of a video (b.bin), 1 hidden video (.hidden.mp4)"
    assert notes == [f"ignored in {one}: {ignored}"]


def test_no_two_sources_share_a_name(contract: Contract, tmp_path: Path) -> None:
    one, two = make(tmp_path / "1/train", "x.mp4"), make(tmp_path / "2/train", "x.mp4")
    found = named(contract, one, two)
    assert list(found) == ["train/x.mp4", "train/x.mp4 (2)"]
    assert list(found.values()) == [one / "x.mp4", two / "x.mp4"]
    (tmp_path / "list.txt").write_text("1/train/x.mp4\n2/train/x.mp4\n1/train/x.mp4\n")
    assert list(named(contract, tmp_path / "list.txt")) == ["1/train/x.mp4", "2/train/x.mp4", "1/train/x.mp4 (2)"]


@pytest.mark.parametrize("absolute", [False, True])
def test_a_list_elsewhere_names_its_videos_without_the_place(
    contract: Contract, tmp_path: Path, absolute: bool
) -> None:
    data = make(tmp_path / "data", "a/x.mp4", "b/y.mp4")
    lines = [
        str(path) if absolute else os.path.join("..", "data", path.relative_to(data)) for path in data.rglob("*.*")
    ]
    make(tmp_path, "lists/all.txt")
    (tmp_path / "lists/all.txt").write_text("\n".join(lines))
    assert sorted(named(contract, tmp_path / "lists/all.txt")) == ["a/x.mp4", "b/y.mp4"]


NAMES = ["plain.mp4", "with space.mp4", "part#1.mp4", "take #2.mp4", "#3.mp4", "a,b.mp4", "class/deep.mp4"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("list.txt", "\n".join(NAMES), NAMES),
        ("bom.txt", "\ufeffplain.mp4\r\nwith space.mp4\r\n", NAMES[:2]),
        ("comments.txt", "# good ones\nplain.mp4 # the best\n\n  with space.mp4\t\n", NAMES[:2]),
        (
            "labels.txt",
            "plain.mp4 7\nwith space.mp4 12\nclass/deep.mp4\t3\ntake #2.mp4 5",
            [*NAMES[:2], NAMES[6], NAMES[3]],
        ),
        ("mm.txt", "plain.mp4 0 32 4\n", NAMES[:1]),
        ("kinetics.csv", "plain.mp4,7\nwith space.mp4,abseiling\n", NAMES[:2]),
        ("headed.csv", "path,label\nplain.mp4,7\n", NAMES[:1]),
        ("semicolons.CSV", "video;label\nplain.mp4;7\n", NAMES[:1]),
        ("quoted.csv", 'path,label\n"a,b.mp4",7\n"plain.mp4",8', ["a,b.mp4", "plain.mp4"]),
        ("spaces.csv", "plain.mp4 7\nclass/deep.mp4 9", [NAMES[0], NAMES[6]]),
        ("tabs.tsv", "with space.mp4\t1\t2", [NAMES[1]]),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and "\n" not in value else "",
)
def test_lists_as_people_write_them(
    contract: Contract, tmp_path: Path, name: str, content: str, expected: list[str]
) -> None:
    make(tmp_path, *NAMES)
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert [source.path for source in find_sources([tmp_path / name], contract)] == [tmp_path / n for n in expected]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", "# nothing\n", "lists no videos"),
        ("wrong.txt", "missing.mp4\n", r"line 1 of .*wrong\.txt lists .*missing\.mp4, which is not a file; correct"),
        ("wrong.csv", "plain.mp4,1\nmissing.mp4,2\n", r"line 2 of .* lists .*missing\.mp4,2, which is not a file"),
        ("first.csv", "missing.mp4,2\nplain.mp4,1\n", "line 1 of .*missing"),
        ("header.csv", "path,label\n", "lists no videos"),
        ("long.txt", "x" * 70000, "which is not a file"),
    ],
)
def test_lists_of_what_is_not_there(contract: Contract, tmp_path: Path, name: str, content: str, said: str) -> None:
    make(tmp_path, *NAMES)
    (tmp_path / name).write_text(content)
    with pytest.raises(ClipError, match=said):
        find_sources([tmp_path / name], contract)


def test_a_list_that_is_no_text(contract: Contract, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("plain.mp4".encode("utf-16"))
    with pytest.raises(ClipError, match=r"list\.txt cannot be read as a list of paths"):
        find_sources([tmp_path / "list.txt"], contract)


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

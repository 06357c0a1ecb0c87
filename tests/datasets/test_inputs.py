"""Folders, lists, Parquet files and shards become the same partitions every time."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from tables import write_table

from vivit_export.datasets.inputs import Inputs, Partition, find_inputs, open_clips
from vivit_export.errors import ClipError


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """Names are enough: nothing is read."""
    (tmp_path / "videos").mkdir()
    found = [tmp_path / "videos" / f"{name}.mp4" for name in "abc"]
    for path in found:
        path.touch()
    return found


def make_shard(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            source = path.with_name("member")
            source.write_bytes(content)
            archive.add(source, name.replace("_", "."))
            source.unlink()
    return path


def test_lists_of_every_kind_name_the_same_videos(tmp_path: Path, videos: list[Path]) -> None:
    names = [f"videos/{path.name}" for path in videos]
    (tmp_path / "list.txt").write_text("# of today\n" + "\n".join(names))
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(f"{name},run" for name in names))
    write_table(tmp_path / "list.parquet", label=["x"] * 3, path=names)
    write_table(tmp_path / "one.parquet", where=names, size=[1, 2, 3])
    expected = tuple(map(str, videos))
    for place in ("videos", "list.txt", "list.csv", "list.parquet", "one.parquet"):
        assert find_inputs([tmp_path / place]).videos == expected, place


def test_what_a_list_names_in_vain_is_left_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("gone.mp4\n")
    write_table(tmp_path / "list.parquet", path=["gone.mp4"])
    for name in ("list.txt", "list.parquet"):
        assert find_inputs([tmp_path / name]).videos == (str(tmp_path / "gone.mp4"),)


def test_lists_of_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# nothing\n")
    (tmp_path / "not.parquet").write_text("no")
    write_table(tmp_path / "empty.parquet", path=[""])
    write_table(tmp_path / "numbers.parquet", path=[1])
    write_table(tmp_path / "other.parquet", one=["a"], two=["b"])
    for name, said in (
        ("list.txt", "list.txt lists no videos"),
        ("empty.parquet", "empty.parquet lists no videos; write one path a row"),
        ("numbers.parquet", "numbers.parquet has no column of text named path or video, only path; rename"),
        ("not.parquet", "not.parquet cannot be read as a Parquet file"),
        ("other.parquet", "other.parquet has no column of text named path or video, only one, two; rename"),
        ("gone", "gone"),
    ):
        with pytest.raises(ClipError, match=said):
            find_inputs([tmp_path / name])


def test_partitions_hold_whole_batches() -> None:
    inputs = Inputs(tuple(map(str, range(2000))), ("a.tar", "b.tar"))
    assert inputs.partition_size(15) == 30 and inputs.partition_size(1) == 32
    assert inputs.partition_size(100) == 100
    assert Inputs(tuple(map(str, range(1_000_000))), ()).partition_size(8) == 512
    parts = list(inputs.partitions(30))
    assert len(parts) == inputs.num_partitions(30) == 69
    assert [part.number for part in parts] == list(range(69))
    assert sum((part.names for part in parts), ()) == inputs.videos
    assert parts[66].first == 66 * 30
    assert parts[-1] == Partition(68, 0, shard="b.tar")


def test_the_hash_tells_other_inputs(tmp_path: Path, videos: list[Path]) -> None:
    names = tuple(map(str, videos))
    shard = make_shard(tmp_path / "a.tar", a_mp4=b"1")
    first = Inputs(names, (str(shard),)).sha256
    assert Inputs(names[::-1], (str(shard),)).sha256 != first
    make_shard(shard, a_mp4=b"1" * 20_000)
    assert Inputs(names, (str(shard),)).sha256 != first


def test_videos_of_a_shard_are_there_one_at_a_time(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "a.tar", a_mp4=b"1", a_json=b"{}", b_cls=b"7", b_webm=b"22")
    assert find_inputs([tmp_path]).shards == find_inputs([shard]).shards == (str(shard),)
    found = []
    for clip in open_clips(Partition(0, 0, shard=str(shard))):
        found.append((clip.number, clip.name, clip.path.read_bytes(), clip.path.suffix))
        assert clip.named(f"{clip.path} is short") == f"{clip.name} is short"
    assert found == [(0, f"{shard}::a.mp4", b"1", ".mp4"), (1, f"{shard}::b.webm", b"22", ".webm")]
    assert not clip.path.exists()


def test_a_shard_that_ends_too_soon_is_told_after_what_it_had(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "a.tar", a_mp4=b"1", b_mp4=b"2" * 10_000)
    shard.write_bytes(shard.read_bytes()[:4_000])
    first, last = open_clips(Partition(0, 0, shard=str(shard)))
    assert first.name == f"{shard}::a.mp4" and first.error is None
    assert last.name == str(shard) and "cannot be read as a tar file after 1 video" in str(last.error)
    (empty,) = open_clips(Partition(0, 0, shard=str(make_shard(tmp_path / "b.tar", a_json=b"{}"))))
    assert "b.tar holds no video" in str(empty.error)
    (gone,) = open_clips(Partition(0, 0, shard=str(tmp_path / "c.tar")))
    assert "c.tar cannot be read as a tar file after 0 videos" in str(gone.error)


def test_links_in_a_shard_are_told(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as archive:
        link = tarfile.TarInfo("b.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (clip,) = open_clips(Partition(0, 0, shard=str(shard)))
    assert str(clip.error) == f"{shard}::b.mp4 is a link, not a video; pack the video itself"

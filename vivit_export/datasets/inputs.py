"""What is run: videos in folders, in lists of paths, or in webdataset shards, split into numbered partitions.

The split depends on nothing but the inputs and the size of a partition, so a run that was cut short can go on. Names
are as the user wrote them: of a list, relative to it; of a shard, the path of the shard, ``::`` and the member.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vivit_export.calibration.sources import LISTS, read_list
from vivit_export.datasets.tables import read_paths
from vivit_export.errors import ClipError, counted
from vivit_export.leftovers import scratch
from vivit_export.runtime.clips.folder import VIDEO_SUFFIXES, find_clips

PARQUET, SHARD = ".parquet", ".tar"
MOST_CLIPS_OF_A_PARTITION = 512
_FEWEST_PARTITIONS = 64  # as long as each has a batch: work for many processes, and little lost with one
_BETWEEN = "::"  # a shard and its member


@dataclass(frozen=True, slots=True)
class Clip:
    """A video of a partition.

    Attributes:
        number: in the inputs; of a shard's, in it.
        name: what results call it.
        path: where it can be read now.
        error: why it cannot be read at all, if that is known already.
    """

    number: int
    name: str
    path: Path
    error: ClipError | None = None

    def named(self, sentence: str) -> str:
        """Return a reader's sentence with the name in place of the path."""
        return sentence.replace(str(self.path), self.name)


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of the inputs.

    Attributes:
        number: of the partition.
        first: number of its first clip; 0 for a shard.
        names: paths of its videos.
        shard: path of a tar file that holds them, instead.
    """

    number: int
    first: int
    names: tuple[str, ...] = ()
    shard: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """All that is run: videos, or shards.

    Attributes:
        videos: paths of videos.
        shards: paths of tar files, whose clips nobody has counted.
    """

    videos: tuple[str, ...]
    shards: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Return a hash of the absolute paths, in order, and of the sizes of the shards."""
        digest = hashlib.sha256()
        for name in self.videos:
            digest.update(f"{os.path.abspath(name)}\n".encode(errors="surrogateescape"))
        for name in self.shards:
            digest.update(f"{os.path.abspath(name)} {os.path.getsize(name)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    @property
    def text(self) -> str:
        """How many there are, for people."""
        known = [counted(len(self.videos), "videos")] * bool(self.videos)
        return " and ".join([*known, *[counted(len(self.shards), "shards")] * bool(self.shards)])

    def partition_size(self, batch: int) -> int:
        """Return how many videos a partition takes: whole batches, and at most 512 unless a batch has more."""
        wanted = min(MOST_CLIPS_OF_A_PARTITION, -(-len(self.videos) // _FEWEST_PARTITIONS))
        return batch * max(1, wanted // batch)

    def num_partitions(self, size: int) -> int:
        """Return how many partitions of this number of videos there are; each shard is one."""
        return -(-len(self.videos) // size) + len(self.shards)

    def partitions(self, size: int) -> Iterator[Partition]:
        """Yield the partitions: those of the videos first."""
        number = -1
        for number, first in enumerate(range(0, len(self.videos), size)):
            yield Partition(number, first, self.videos[first : first + size])
        for shard in self.shards:
            number += 1
            yield Partition(number, 0, shard=shard)


def find_inputs(places: Sequence[Path], note: Callable[[str], None] | None = None) -> Inputs:
    """Find videos, without reading any.

    Args:
        places: folders of videos, or of nothing but shards; videos; lists with one path per line (``.txt``, ``.csv``,
            ``.tsv``), relative to the list; Parquet files with a column of paths; webdataset shards (``.tar``).
        note: receives a remark if anything in a folder is ignored.

    Raises:
        ClipError: something does not exist, or there is nothing to run.
    """
    videos: list[str] = []
    shards: list[str] = []
    for place in places:
        suffix = place.suffix.lower()
        if place.is_dir() and (inner := sorted(place.glob(f"*{SHARD}"))):
            shards += map(str, inner)
        elif suffix == SHARD and place.is_file():
            shards.append(str(place))
        elif suffix == PARQUET and place.is_file():
            videos += (str(place.parent / name) for name in read_paths(place))
        elif suffix in LISTS and place.is_file():
            videos += (str(path) for _, path, _ in read_list(place))
        else:
            videos += map(str, find_clips(place, note))
    return Inputs(tuple(videos), tuple(shards))


def open_clips(partition: Partition) -> Iterator[Clip]:
    """Yield the videos of a partition in order; those of a shard can be read until the next one is asked for."""
    if partition.shard is None:
        for number, name in enumerate(partition.names, partition.first):
            yield Clip(number, name, Path(name))
        return
    with scratch() as folder:
        yield from _members(partition.shard, folder)


def _members(shard: str, folder: Path) -> Iterator[Clip]:
    """Copy each video of a tar file to a folder, one at a time; all else in it is left out."""
    number = -1
    try:
        with tarfile.open(shard, "r|*") as archive:
            for member in archive:
                suffix = os.path.splitext(member.name)[1].lower()
                if member.isdir() or suffix not in VIDEO_SUFFIXES:
                    continue
                name, path = f"{shard}{_BETWEEN}{member.name}", folder / f"clip{suffix}"  # its own may lead anywhere
                if not member.isfile():
                    number += 1
                    yield Clip(number, name, path, ClipError(f"{name} is a link, not a video; pack the video itself"))
                    continue
                _copy(archive, member, path)
                number += 1
                yield Clip(number, name, path)
                path.unlink()
    except (OSError, EOFError, tarfile.TarError) as e:
        # What was read of it stays; what follows cannot be told apart.
        error = ClipError(f"{shard} cannot be read as a tar file after {counted(number + 1, 'videos')}: {e}")
        yield Clip(number + 1, shard, Path(shard), error)
        return
    if number < 0:
        yield Clip(0, shard, Path(shard), ClipError(f"{shard} holds no video"))


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = archive.extractfile(member)
    assert source is not None  # it is a file
    with path.open("wb") as target:
        while piece := source.read(1 << 20):
            target.write(piece)

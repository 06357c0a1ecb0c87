"""Where the clips of a calibration are: videos in folders or lists, and rows of safetensors files.

Every clip has a name that no other has, made of its path inside the data, so that nothing that is written down
depends on where the data lies.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from vivit_export.contract import Contract
from vivit_export.errors import ClipError
from vivit_export.runtime import find_clips

FRAMES = "frames"
"""Name of the tensor with crops in a safetensors file."""
LISTS = (".txt", ".csv", ".tsv")
"""Suffixes of files that list videos."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one clip comes from.

    Attributes:
        path: a video, or a safetensors file.
        name: the path relative to the data, with the row if there is one.
        row: row of the safetensors file; None for a video.
    """

    path: Path
    name: str
    row: int | None = None


def find_sources(places: Sequence[Path], contract: Contract, note: Callable[[str], None] | None = None) -> list[Source]:
    """Find clips without decoding any; see `clips.find_calibration_clips` for what a place may be.

    Args:
        places: where the clips are.
        contract: contract of the model.
        note: receives a remark for each folder in which anything is ignored; see `find_clips`.

    Raises:
        ClipError: something does not exist, lists what does not exist, or holds clips of another shape.
    """
    found: list[Source] = []
    for place in places:
        inside = _sources(place, contract, note)
        if len(places) > 1 and place.is_dir():
            inside = [replace(source, name=f"{place.absolute().name}/{source.name}") for source in inside]
        found += inside
    return list(_with_names_of_their_own(found))


def _with_names_of_their_own(sources: Sequence[Source]) -> Iterator[Source]:
    """Number the sources that have one name: equal paths in two folders that have one name, or listed twice."""
    seen: Counter[str] = Counter()
    for source in sources:
        seen[source.name] += 1
        count = seen[source.name]
        yield source if count == 1 else replace(source, name=f"{source.name} ({count})")


def _sources(place: Path, contract: Contract, note: Callable[[str], None] | None) -> list[Source]:
    if place.suffix.lower() in LISTS and place.is_file():
        return _inside(_listed(place))
    if place.suffix == ".safetensors" and place.is_file():
        return _rows(place, contract)
    paths = find_clips(place, note)
    return _inside(paths, place if place.is_dir() else place.parent)


def _inside(paths: Sequence[Path], root: Path | None = None) -> list[Source]:
    """Name videos relative to ``root``, or to the lowest folder that holds all of them."""
    whole = [os.path.abspath(path) for path in paths]
    above = os.path.abspath(root) if root else os.path.commonpath([os.path.dirname(path) for path in whole])
    return [
        Source(path, Path(os.path.relpath(name, above)).as_posix()) for path, name in zip(paths, whole, strict=True)
    ]


def _listed(place: Path) -> list[Path]:
    paths = []
    for number, path, is_file in read_list(place):
        if not is_file:
            raise ClipError(f"line {number} of {place} lists {path}, which is not a file; correct the list")
        paths.append(path)
    return paths


def read_list(place: Path) -> Iterator[tuple[int, Path, bool]]:
    """Yield the number of each line of a list, the video that it names, and whether there is such a file.

    Args:
        place: a text file with one path per line, relative to it; a label may follow, and `` #`` starts a comment.

    Raises:
        ClipError: it cannot be read, or lists nothing.
    """
    is_empty = True
    try:
        with place.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                readings = list(_readings(line.strip()))
                path = next((place.parent / text for text in readings if os.path.isfile(place.parent / text)), None)
                is_remark = line.lstrip().startswith("#") or (number == 1 and _is_header(place, (readings or [""])[-1]))
                if path is not None or (readings and not is_remark):
                    is_empty = False
                    yield number, path or place.parent / readings[0], path is not None
    except (OSError, UnicodeDecodeError) as e:
        raise ClipError(f"{place} cannot be read as a list of paths ({e}); write one path a line") from e
    if is_empty:
        raise ClipError(f"{place} lists no videos; write one path a line")


def _readings(line: str) -> Iterator[str]:
    """Yield what a line may mean, most of it first: a path, before a comment, or before a label (as in Kinetics)."""
    for text in dict.fromkeys((line.partition(" #")[0].strip(), line)):
        if not text:
            continue
        yield text
        if quoted := re.match(r'"([^"]+)"', text):
            yield quoted[1]
        for delimiter in ",;\t":
            if delimiter in text:
                yield text.partition(delimiter)[0].strip()
        words = len(text.split())
        yield from (text.rsplit(maxsplit=count)[0] for count in range(1, words))


def _is_header(place: Path, cell: str) -> bool:
    return place.suffix.lower() != ".txt" and not {".", "/", "\\"} & set(cell)


def _rows(place: Path, contract: Contract) -> list[Source]:
    clip = contract.clip
    needed = (clip.num_frames, clip.height, clip.width, 3)
    try:
        with safe_open(place, "numpy") as file:
            found = file.get_slice(FRAMES) if FRAMES in file.keys() else None  # noqa: SIM118 - no mapping
            dtype, shape = ("", ()) if found is None else (found.get_dtype(), tuple(found.get_shape()))
    except (OSError, SafetensorError) as e:
        raise ClipError(f"{place} cannot be read as safetensors ({e}); write it again") from e
    if dtype != "U8" or shape[1:] != needed:
        got = f"{dtype} {shape}" if shape else "no such tensor"
        raise ClipError(
            f"{place} must hold {FRAMES}, uint8 (N, {', '.join(map(str, needed))}), resized and cropped as the model "
            f"takes them; it has {got}"
        )
    return [Source(place, f"{place.name}[{row}]", row) for row in range(shape[0])]

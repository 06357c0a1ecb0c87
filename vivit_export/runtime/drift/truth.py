"""Read which label each clip of a check is known to have."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vivit_export.contract import Contract
from vivit_export.errors import InputError, UsageError, counted, option
from vivit_export.files import regular_text, why_missing
from vivit_export.records import shown

_MOST_BYTES = 256 << 20
_SHOWN = 3
_HEADERS = {"path", "video", "clip", "file", "filename", "name", "youtube_id", "video_path"}


@dataclass(frozen=True)
class Truth:
    """The known labels of the clips of a check.

    Attributes:
        source: name of the file.
        classes: index of the label of each clip, in the order of the clips.
    """

    source: str
    classes: tuple[int, ...]


def read_truth(path: Path, contract: Contract, names: Sequence[str], others: Sequence[str] = ()) -> Truth:
    """Read a file with a label for each clip.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.txt`` file in UTF-8: a clip and its label in each line, with a comma, a
            semicolon, a tab or, in ``.txt``, spaces between. A clip is its name in the check, a longer or a shorter
            path of it, with or without the suffix, as long as it means one clip. A label is its name or its index.
            A first line such as ``path,label`` and lines that begin with ``#`` are ignored.
        contract: has the labels.
        names: names of the clips.
        others: names of clips that exist but are not checked; lines about them are ignored.

    Raises:
        UsageError: the model's task is not that of one label for each clip.
        InputError: the file cannot be read, or a clip in it is unknown, named twice or has an unknown label, or a clip
            of the check is missing.
    """
    require_one_label(contract)
    known = _Clips(dict.fromkeys([*names, *others]))
    classes = _Classes(contract.labels, next(t.shape[-1] for t in contract.io.outputs if t.name == "logits"))
    found: dict[str, tuple[int, int]] = {}
    for number, clip, label in _rows(path):
        name = known.find(clip, f"line {number} of {path}")
        if name in found:
            raise InputError(
                f"line {number} of {path} names {shown(clip)}, which line {found[name][0]} has labelled already; "
                "remove one of the two"
            )
        found[name] = number, classes.find(label, f"line {number} of {path}")
    if not found:
        raise InputError(f"{path} labels no clip; write a clip and its label in each line, such as: a.mp4,walk")
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(
            f"{path} has no label for {len(missing)} of {counted(len(names), 'clips')}: {', '.join(missing[:_SHOWN])}"
            f"{more}; add them, or leave these clips out"
        )
    return Truth(path.name, tuple(found[name][1] for name in names))


def require_one_label(contract: Contract) -> None:
    """Refuse labels for a model that does not choose one label for each clip.

    Raises:
        UsageError: it has no logits, or another task.
    """
    given = option("labels")
    if all(tensor.name != "logits" for tensor in contract.io.outputs):
        raise UsageError(f"{given} says what the logits should say, and this model has only an embedding; leave it out")
    if contract.task != "single_label_classification":
        raise UsageError(
            f"{given} measures how often the best class is right, and the task of this model is {contract.task}, which "
            "has none; leave it out"
        )


class _Clips:
    """Finds a clip by what a file calls it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_end: dict[str, list[str]] = {}
        for name in names:
            for end in {_path(name).name, _path(name).stem}:
                self._by_end.setdefault(end, []).append(name)

    def find(self, given: str, where: str) -> str:
        """Return its name; InputError if it means none, or several."""
        path = _path(given.replace("\\", "/"))
        candidates = self._by_end.get(path.name, [])
        exact = [name for name in candidates if _path(name) == path]
        found = exact or [name for name in candidates if _means(path, _path(name))]
        if not found:
            raise InputError(
                f"{where} labels {shown(given)}, which is not a clip of this check; correct the name or remove the line"
            )
        if len(found) > 1:
            raise InputError(f"{where} labels {shown(given)}, which may be {found[0]} or {found[1]}; write its path")
        return found[0]


def _path(name: str) -> PurePosixPath:
    """Return a clip's name as a path; a clip of a shard is SHARD::MEMBER."""
    return PurePosixPath(name.replace("::", "/"))


def _means(given: PurePosixPath, name: PurePosixPath) -> bool:
    """Whether one path is the end of the other, once the suffix is left out if the given one has none."""
    a, b = given.parts, (name.parts if given.name == name.name else name.with_suffix("").parts)
    count = min(len(a), len(b))
    return a[-count:] == b[-count:]


class _Classes:
    """Finds a class by its name or its index."""

    def __init__(self, labels: Sequence[str], num_labels: int | str) -> None:
        self._count = len(labels) or int(num_labels)
        self._by_name: dict[str, list[int]] = {}
        for index, label in enumerate(labels):
            self._by_name.setdefault(label.strip(), []).append(index)

    def find(self, given: str, where: str) -> int:
        """Return its index; InputError if there is none, or several of that name."""
        found = self._by_name.get(given, [])
        if len(found) > 1:
            raise InputError(f"{where} has the label {shown(given)}, which the model has twice; write its index")
        if found:
            return found[0]
        if given.isascii() and given.isdigit() and int(given[:9]) < self._count and len(given) < 10:
            return int(given)
        names = ", ".join(list(self._by_name)[:_SHOWN])
        example = f" such as {names}" if names else ""
        raise InputError(
            f"{where} has the label {shown(given)}, which the model lacks; write the name of a label{example}, or an "
            f"index from 0 to {self._count - 1}"
        )


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line, the clip and the label."""
    text = _text(path)
    delimiter = _delimiter(path, text)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter) if delimiter else None
    try:
        for number, cells in _cells(reader, text):
            if not any(cells) or cells[0].startswith("#") or (number == 1 and _is_header(cells)):
                continue
            if len(cells) < 2 or not cells[0] or not cells[1]:
                raise InputError(
                    f"line {number} of {path} is not a clip and its label; write both, such as: a.mp4,walk"
                )
            yield number, cells[0], cells[1]
    except csv.Error as e:
        raise InputError(f"{path} cannot be read as labels ({e}); write a clip and its label in each line") from e


def _cells(reader: Iterator[list[str]] | None, text: str) -> Iterator[tuple[int, list[str]]]:
    if reader is None:
        for number, line in enumerate(text.splitlines(), 1):
            yield number, line.strip().rsplit(maxsplit=1)
        return
    for cells in reader:
        yield int(getattr(reader, "line_num", 0)), [cell.strip() for cell in cells]


def _text(path: Path) -> str:
    if reason := why_missing(path):
        raise InputError(f"{path} {reason}; give a file with a clip and its label in each line")
    try:
        return regular_text(path, _MOST_BYTES, "utf-8-sig")  # editors on Windows begin a file with a mark
    except UnicodeDecodeError as e:
        raise InputError(f"{path} is not text in UTF-8; save it in that encoding") from e
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else str(e)
        raise InputError(f"{path} cannot be read: {reason}; give a file with a clip and its label in each line") from e


def _delimiter(path: Path, text: str) -> str | None:
    """Return what separates the cells; None: spaces."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    found = next((delimiter for delimiter in ("\t", ";", ",") if delimiter in first), None)
    return found or ("," if path.suffix.lower() == ".csv" else None)


def _is_header(cells: Sequence[str]) -> bool:
    return cells[0].lower() in _HEADERS

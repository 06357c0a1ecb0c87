"""What a pickled checkpoint would do, read from its instructions before anything carries them out.

``torch.load(weights_only=True)`` refuses most code by itself. It still allocates whatever a pickle asks for, and
inflates what is compressed. What torch saves of a state dict needs neither.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vivit_export.errors import CheckpointError
from vivit_export.limits import MOST_HEADER_BYTES, MOST_WEIGHTS
from vivit_export.records import shortly

_TENSORS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch Size"
    r"|torch(\.cuda)? \w+Storage|torch\.storage (UntypedStorage|TypedStorage)"
)
_OLD_FORMAT_PICKLES = 5  # magic number, protocol, system, the state dict, names of its storages
_MOST_INSTRUCTIONS = 30 * MOST_WEIGHTS
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_PUTS, _GETS = {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


def require_only_tensors(path: Path) -> None:
    """Refuse a pickle that needs anything but what torch saves of tensors by name.

    Raises:
        CheckpointError: it does, or is not of torch's form.
        OSError: it cannot be read.
    """
    try:
        for named in _globals(path):
            if not _TENSORS.fullmatch(named):
                raise CheckpointError(
                    f"{path} holds more than tensors, which may be code, so it is not read: it names "
                    f"{shortly(named)}; convert it to safetensors"
                )
    except (ValueError, zipfile.BadZipFile, KeyError, IndexError, NotImplementedError) as e:
        raise CheckpointError(
            f"{path} is not a state dict as torch saves it ({shortly(str(e))}); convert it to safetensors"
        ) from e


def _globals(path: Path) -> Iterator[str]:
    """Yield ``MODULE NAME`` of everything that is looked up by name."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(_OLD_FORMAT_PICKLES):
                yield from _globals_of(file)
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_WEIGHTS + 10:
            raise ValueError(f"it has {len(entries)} parts")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        (content,) = (entry for entry in entries if entry.filename.endswith("/data.pkl"))
        if content.file_size > MOST_HEADER_BYTES:
            raise ValueError(f"its instructions have {content.file_size} bytes")
        with archive.open(content) as file:
            yield from _globals_of(file)


def _globals_of(file: IO[bytes]) -> Iterator[str]:
    texts: list[str | None] = []  # what the last instructions put on the stack, if it is text
    memo: dict[int, str | None] = {}
    for count, (code, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MOST_INSTRUCTIONS:
            raise ValueError("it has too many instructions")
        if code.name in _TEXTS:
            texts.append(str(argument))
        elif code.name in _PUTS:
            memo[len(memo) if argument is None else int(argument)] = texts[-1] if texts else None
        elif code.name in _GETS:
            texts.append(memo.get(int(argument or 0)))
        elif code.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif code.name == "STACK_GLOBAL":
            yield " ".join(text or "?" for text in texts[-2:])
        elif code.name.startswith("EXT"):
            yield "a registered name"
        else:
            texts.clear()

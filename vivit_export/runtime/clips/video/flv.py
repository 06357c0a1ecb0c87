"""Whether an FLV file is several, joined byte by byte: FFmpeg reads the first and ends there without a word."""

from __future__ import annotations

from pathlib import Path

_SIGNATURE = b"FLV"
_OFFSET_AT = slice(5, 9)  # in the header: where the tags begin
_TAG_HEADER_BYTES = 11
_SIZE_AT = slice(1, 4)  # in the header of a tag: bytes of its data
_TRAILER_BYTES = 4  # after each tag, and before the first: the size of the one before


def is_joined(path: Path) -> bool:
    """Return whether another header follows a tag of an FLV file. Only the headers of the tags are read."""
    with path.open("rb") as file:
        head = file.read(_OFFSET_AT.stop)
        if not head.startswith(_SIGNATURE):
            return False
        at = int.from_bytes(head[_OFFSET_AT], "big") + _TRAILER_BYTES
        while True:
            file.seek(at)
            tag = file.read(_TAG_HEADER_BYTES)
            if tag.startswith(_SIGNATURE):
                return True
            if len(tag) < _TAG_HEADER_BYTES:
                return False
            at += _TAG_HEADER_BYTES + int.from_bytes(tag[_SIZE_AT], "big") + _TRAILER_BYTES

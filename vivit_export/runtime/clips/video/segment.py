"""Whether a Matroska file is as long as it says.

Browsers record WebM as an endless segment, and tools that add the duration afterwards write the time on the clock,
pauses included. So a duration beyond the data proves nothing; a segment that ends beyond the file does.
"""

from __future__ import annotations

from pathlib import Path

_SEGMENT = b"\x18\x53\x80\x67"
_LONGEST = 9  # bytes of a number
_HEADER_BYTES = 4096  # the segment begins at once after the EBML header


def segment_is_whole(path: Path) -> bool:
    """Return whether a file is Matroska and its segment ends within it, or is endless."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    at = 0
    while at + 2 * _LONGEST <= len(head) and head[at]:
        size_at = at + _length(head[at])
        begin = size_at + _length(head[size_at])
        bits = 7 * (begin - size_at)  # the others mark the length
        size = int.from_bytes(head[size_at:begin], "big") & ((1 << bits) - 1)
        if head[at:size_at] == _SEGMENT:
            return size == (1 << bits) - 1 or begin + size <= path.stat().st_size
        at = begin + size
    return False


def _length(first: int) -> int:
    """Return how many bytes an EBML number has whose first byte this is."""
    return 9 - first.bit_length()

"""What the headers of H.264 and HEVC say about a packet, without decoding it (ITU-T H.264 and H.265, clause 7.3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CODECS_WITH_HEADERS = ("h264", "hevc")


def length_bytes_of(codec: str, extradata: bytes | None) -> int:
    """Return how long the lengths before NAL units are, as the stream's own header says, or 0 if there are none.

    That header is an avcC or hvcC box (ISO/IEC 14496-15, clauses 5.3.3 and 8.3.3) where units have lengths, as in MP4
    and Matroska, and something else or nothing where they follow start codes, as in transport streams.
    """
    at = {"h264": 4, "hevc": 21}.get(codec)
    if at is None or not extradata or len(extradata) <= at or extradata[0] != 1:
        return 0
    return (extradata[at] & 3) + 1


def nal_headers(data: Any, length_bytes: int) -> Iterator[int]:
    """Yield the first byte of each NAL unit of a packet.

    Args:
        data: the packet, or its bytes.
        length_bytes: from `length_bytes_of`.
    """
    raw = memoryview(data).cast("B")
    if not length_bytes:
        yield from (unit[0] for unit in bytes(raw).split(b"\0\0\1")[1:] if unit)
        return
    at = 0
    while at + length_bytes < len(raw):
        yield raw[at + length_bytes]
        at += length_bytes + int.from_bytes(raw[at : at + length_bytes], "big")


def holds_idr(data: Any, length_bytes: int) -> bool:
    """Return whether a packet of H.264 holds a picture before which nothing is needed."""
    return any(header & 31 == 5 for header in nal_headers(data, length_bytes))


def is_referred_to(data: Any, codec: str, length_bytes: int) -> bool | None:
    """Return whether later pictures may refer to the one in a packet, or None if it holds no picture.

    Args:
        data: the packet, or its bytes.
        codec: one of `CODECS_WITH_HEADERS`.
        length_bytes: from `length_bytes_of`.
    """
    for header in nal_headers(data, length_bytes):
        if codec == "h264" and header & 31 in (1, 2, 5):
            return bool(header >> 5 & 3)  # nal_ref_idc
        if codec == "hevc" and (kind := header >> 1 & 63) < 32:
            return kind >= 16 or bool(kind & 1)  # the even ones up to 14 are not referred to
    return None

"""Videos that promise more than a machine can hold, name other files, or change their minds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """One bit a pixel, all black; with fewer rows than its header says, if told so."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def film(path: Path, pictures: list[bytes], declared: tuple[int, int] = (64, 64)) -> None:
    """Put pictures into a QuickTime film that declares a size, which no encoder needs to support."""
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "monob"
        for number, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            container.mux(packet)
    path.write_bytes(path.read_bytes().replace(struct.pack(">HH", 64, 64), struct.pack(">HH", *declared)))


def _y4m(header: str, frames: int = 1, size: int = 96) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(f"YUV4MPEG2 {header}\n".encode() + (b"FRAME\n" + bytes(size)) * frames)


def _text(*lines: str) -> Callable[[Path], object]:
    return lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8")


_MP4 = b"\x00\x00\x00\x18ftypmp42" + bytes(12)
_MKV = b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 7
SECRET = "file:///etc/passwd"
VIDEOS: dict[str, Callable[[Path], object]] = {
    "twelve-frames-of-16000.mov": lambda path: film(path, [png(16000, 16000)] * 12, (16000, 16000)),
    "declares-64-holds-16000.mov": lambda path: film(path, [png(16000, 16000)] * 12),
    "grows-later.mov": lambda path: film(path, [png(64, 64)] * 4 + [png(16000, 16000)] * 8),
    "changes-its-size.mov": lambda path: film(path, [png(64, 64)] * 8 + [png(32, 48)] * 4),
    "declares-30000.mov": lambda path: film(path, [png(30000, 30000, rows=2)] * 3, (30000, 30000)),
    "declares-30000.png.mov": lambda path: film(path, [png(30000, 30000, rows=2)] * 3),
    "declares-30000.y4m": _y4m("W30000 H30000 F25:1 C420"),
    "declares-99999.y4m": _y4m("W99999 H99999 F25:1 C420"),
    "declares-nothing.y4m": _y4m("F25:1"),
    "negative.y4m": _y4m("W-8 H8 F25:1 C420"),
    "cut.y4m": _y4m("W64 H64 F25:1 C420"),
    "endless-header.y4m": lambda path: path.write_bytes(b"YUV4MPEG2 " + b"X" * 10**6),
    "hls.mp4": _text("#EXTM3U", "#EXTINF:1,", SECRET),
    "hls-above.mp4": _text("#EXTM3U", "#EXTINF:1,", "../../../etc/passwd"),
    "hls-key.mp4": _text("#EXTM3U", f'#EXT-X-KEY:METHOD=AES-128,URI="{SECRET}"', "#EXTINF:1,", "a.ts"),
    "ffconcat.mkv": _text("ffconcat version 1.0", "file /etc/passwd"),
    "concat.mkv": _text("file '/etc/passwd'"),
    "dash.mp4": _text('<?xml version="1.0"?>', "<MPD><BaseURL>file:///etc/</BaseURL></MPD>"),
    "sdp.mp4": _text("v=0", "o=- 0 0 IN IP4 127.0.0.1", "m=video 5004 RTP/AVP 96"),
    "svg.mp4": _text('<svg xmlns:xlink="x"><image xlink:href="file:///etc/passwd"/></svg>'),
    "garbage.mp4": lambda path: path.write_bytes(_MP4 + bytes(range(256)) * 64),
    "box-of-2^63.mp4": lambda path: path.write_bytes(_MP4 + struct.pack(">I4sQ", 1, b"moov", 2**63 - 1)),
    "boxes-in-boxes.mp4": lambda path: path.write_bytes(
        _MP4 + b"".join(struct.pack(">I4s", 80_000 - 8 * i, b"moov") for i in range(9000))
    ),
    "elements-in-elements.mkv": lambda path: path.write_bytes(_MKV + b"\x18\x53\x80\x67" * 9000),
}

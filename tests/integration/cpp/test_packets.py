"""What the headers of packets say: the same in C++ as in Python."""

from __future__ import annotations

import numpy as np
import pytest
from cpp_project import Cpp

from vivit_export.runtime.clips.video.nal import holds_idr, is_referred_to, length_bytes_of

pytestmark = pytest.mark.needs_onnxruntime

AVCC, HVCC = b"\1d\0\n", b"\1" + bytes(20)
EXTRADATA = (b"", b"\0\0\0\1\x67", *(head + bytes([0xFC | i]) for head in (AVCC, HVCC) for i in range(4)), b"\1" * 30)


def test_packet_headers_are_pythons(cpp: Cpp) -> None:
    rng = np.random.default_rng(14)
    # The length of 256 to 511 bytes begins as a start code does.
    packets = [n.to_bytes(4, "big") + b"\x65" + b"\xaa" * (n - 1) for n in (1, 255, 256, 300, 511, 512, 70000)]
    packets += [
        b"",
        b"\0",
        b"\0\0\0\0",
        b"\xff" * 9,
        b"\0\0\1",
        b"\0\0\1\0\0\1",
        b"\0\0\1\0\0\1\x41",
        b"\0\0\0\2\x67\0",
    ]
    packets += [
        rng.choice([0, 0, 0, 1, 2, 5, 0x41, 0x65], rng.integers(0, 40)).astype(np.uint8).tobytes() for _ in range(300)
    ]
    cases = [(codec, extradata, packet) for codec in ("h264", "hevc") for extradata in EXTRADATA for packet in packets]
    answers = cpp.ask(
        [
            {"do": "headers", "codec": codec, "extradata": list(extradata), "packet": list(packet)}
            for codec, extradata, packet in cases
        ]
    )
    for (codec, extradata, packet), answer in zip(cases, answers, strict=True):
        length_bytes = length_bytes_of(codec, extradata)
        assert answer == {
            "length_bytes": length_bytes,
            "idr": holds_idr(packet, length_bytes),
            "referred": is_referred_to(packet, codec, length_bytes),
        }, (codec, extradata, packet)

"""Videos that never end: pipes, devices and files of a terabyte that nobody wrote are refused, in Python and C++.

A live source may be endless. Its memory stays bounded, and it ends when its reader has seen enough.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from attacked import SMALL, within_limits
from console import BIN

from vivit_export.bundle import read_bundle
from vivit_export.contract import Contract
from vivit_export.demo import clips_path
from vivit_export.deploy.triton.front import read_video
from vivit_export.errors import ClipError
from vivit_export.limits import MOST_HOLE_BYTES
from vivit_export.runtime.clips.video.frames import read_sampled
from vivit_export.runtime.clips.views import read_views

CLIP = clips_path() / "up_240x426_30fps.mp4"
TERABYTE = 1 << 40


@pytest.fixture(scope="module")
def contract() -> Contract:
    return read_bundle(SMALL).contract


def hollow(head: bytes) -> Callable[[Path], None]:
    """A file of a terabyte that begins like something."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.write(head)
            file.truncate(TERABYTE)

    return make


def followed_by_nothing(kind: str) -> Callable[[Path], None]:
    """A real video with a terabyte behind it."""

    def make(path: Path) -> None:
        with av.open(str(CLIP)) as source, av.open(str(path), "w", format=kind) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        with path.open("r+b") as file:
            file.truncate(TERABYTE)

    return make


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


EBML = b"\x1a\x45\xdf\xa3\x8b\x42\x82\x84webm\x42\x87\x81\x04"
KINDS = ("matroska", "flv", "mpegts", "h264", "nut", "mp4")
ENDLESS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "zeros": link("/dev/zero"),
    "noise": link("/dev/urandom"),
    "a full device": link("/dev/full"),
    "a terabyte of nothing": hollow(b""),
    "Matroska": hollow(EBML),
    "FLV": hollow(b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00"),
    "AVI": hollow(b"RIFF\xff\xff\xff\x7fAVI LIST\xff\xff\xff\x7fhdrl"),
    "MPEG-TS": hollow((b"G\x1f\xff\x10" + b"\xff" * 184) * 50),
    "H.264": hollow(b"\0\0\0\1\x67\x42\x00\x0a\xf8\x41\xa2\0\0\0\1\x68\xce\x38\x80"),
    "YUV4MPEG2": hollow(b"YUV4MPEG2 W64 H64 F25:1 C420\nFRAME\n" + bytes(6144)),
    **{
        f"{kind} and nothing": followed_by_nothing(kind) for kind in ("matroska", "flv", "mpegts", "h264", "nut", "mp4")
    },
}


@pytest.mark.parametrize("make", ENDLESS.values(), ids=ENDLESS)
def test_a_file_without_an_end_is_refused_at_once(
    tmp_path: Path, contract: Contract, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "video")
    start = time.monotonic()
    with (
        within_limits(),
        pytest.raises(ClipError, match=r"is a (pipe|device), not a file|has a hole of \d+ bytes"),
    ):
        read_views(tmp_path / "video", contract)
    assert time.monotonic() - start < 20


def test_a_hole_that_is_no_larger_than_a_video_may_be_is_none(tmp_path: Path, contract: Contract) -> None:
    """A copy that skips zeros; and one byte more is too much."""
    path = tmp_path / "video.mp4"
    shutil.copy(CLIP, path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size + MOST_HOLE_BYTES // 2)
    assert len(read_sampled(path, np.arange)) == len(read_sampled(CLIP, np.arange))
    with path.open("r+b") as file:
        file.truncate(size + 2 * MOST_HOLE_BYTES)
    with pytest.raises(ClipError, match="as a download has that is not finished; get all of it, or copy it again"):
        read_views(path, contract)


def test_where_a_file_system_cannot_tell_nothing_is_a_hole(
    tmp_path: Path, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    seek = os.lseek

    def refuse(descriptor: int, at: int, how: int) -> int:
        if how in (os.SEEK_HOLE, os.SEEK_DATA):
            raise OSError(22, "Invalid argument")
        return seek(descriptor, at, how)

    monkeypatch.setattr(os, "lseek", refuse)
    hollow(b"nonsense")(tmp_path / "video")
    with pytest.raises(ClipError, match="cannot be read as a video"):
        read_views(tmp_path / "video", contract)


def test_a_video_that_changes_its_size_at_every_frame_is_refused(tmp_path: Path, contract: Contract) -> None:
    from hostile_videos import film, png

    film(tmp_path / "a.mov", [png(64 + 16 * (i % 5), 64) for i in range(12)])
    for read in (
        lambda: read_views(tmp_path / "a.mov", contract),
        lambda: read_video((tmp_path / "a.mov").read_bytes(), contract),
    ):
        with within_limits(), pytest.raises(ClipError, match="size"):
            read()


def test_an_endless_stream_on_standard_input_takes_no_more_memory_the_longer_it_runs(
    demo_bundle: Path, tmp_path: Path
) -> None:
    """Frames come as fast as they are taken; then the stream breaks off."""
    command = [str(BIN / "vivit"), "predict", str(demo_bundle), "-", "--window", "8f", "--quiet"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    feeder = threading.Thread(target=feed, args=(process,), daemon=True)
    feeder.start()
    memory = []
    for line, _ in enumerate(process.stdout, 1):
        if line % 40 == 0:
            memory.append(psutil.Process(process.pid).memory_info().rss)
        if line == 240:
            break
    process.stdin.close()
    process.stdout.close()
    process.wait(60)
    feeder.join(60)
    assert max(memory[1:]) < memory[1] + 100e6, memory


def feed(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    noise = np.random.default_rng(0).integers(0, 256, 64 * 64 * 3 // 2, dtype=np.uint8).tobytes()
    try:
        process.stdin.write(b"YUV4MPEG2 W64 H64 F25:1 Ip A1:1 C420jpeg\n")
        while True:
            process.stdin.write(b"FRAME\n" + noise)
    except (BrokenPipeError, ValueError):
        pass

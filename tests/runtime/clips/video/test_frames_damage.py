"""Frames that the decoder marks as damaged make a video unusable, and no good video is taken for one."""

from __future__ import annotations

import random
from pathlib import Path

import av
import numpy as np
import pytest
from real_clips import NAMES, real_clip
from videos import contract, make_picture_video, moving_picture

from vivit_export.contract import Clip
from vivit_export.errors import ClipError
from vivit_export.runtime import read_clip, read_windows
from vivit_export.runtime.clips.video.reading import Reading

CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", {"g": "12"}),
    "h264.ts": ("libx264", {"g": "12"}),
    "h264.avi": ("libx264", {"g": "12", "bf": "0"}),
    "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2", "qmax": "4"}),
    "mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2", "qmax": "4"}),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2", "qmax": "4"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2", "qmax": "4"}),
}


def make_film(folder: Path, name: str) -> Path:
    codec, options = CODECS[name]
    pictures = [moving_picture(i, 160, 120) for i in range(60)]
    return make_picture_video(folder / name, pictures, codec=codec, codec_options=options)


def flip_bits(path: Path, count: int, seed: int) -> None:
    """Flip bits of the coded pictures of frame 30 and later ones."""
    with av.open(str(path)) as container:
        packets = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size][30:]
    data, rng = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(count):
        position, size = rng.choice(packets)
        data[position + rng.randrange(size // 2, size)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def marked(path: Path) -> list[int]:
    """The frames that the decoder marks, by PyAV alone."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "FRAME"  # slices in parallel hide the errors of H.264
        return [number for number, frame in enumerate(container.decode(video=0)) if frame.is_corrupt]


@pytest.mark.parametrize("name", CODECS)
def test_frames_with_errors_are_refused_wanted_or_not(tmp_path: Path, name: str) -> None:
    path = make_film(tmp_path, name)
    assert not marked(path)
    head = contract(8, Clip(8, 32, 32, (1, 16, 16), "head"))
    whole = read_clip(path, head, Reading("full"))
    found = 0
    for seed in range(4):
        flip_bits(path, 5, seed)
        # Which frames are marked depends on how the decoder's threads meet, but not that some are.
        if not marked(path):
            continue
        found += 1
        with pytest.raises(
            ClipError, match=rf"{name} is damaged: the decoder reports errors in (1 frame|\d+ frames) \(\d"
        ):
            read_clip(path, head, Reading("full"))  # which are all before the damage
        if path.suffix in (".mp4", ".mkv", ".webm"):  # nothing behind them is decoded
            np.testing.assert_array_equal(read_clip(path, head), whole)
        with pytest.raises(ClipError, match="the decoder reports errors in"):
            list(read_windows(path, contract(4), window=4, unit="frames"))
    assert found


def test_the_sentence_names_runs_of_frames(tmp_path: Path) -> None:
    pictures = [moving_picture(i, 160, 120) for i in range(60)]
    path = make_picture_video(tmp_path / "film.avi", pictures, codec="mpeg4", codec_options={"g": "12", "qmax": "4"})
    with av.open(str(path)) as container:
        packets = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in (13, 14, 15, 40, *range(42, 60, 2)):
        position, size = packets[number]
        data[position + size // 2 : position + size] = bytes(size - size // 2)
    path.write_bytes(data)
    sentence = r"errors in 13 frames \(13-15, 40, 42, 44, 46, 48, 50, 52, …\); copy or encode it again"
    with pytest.raises(ClipError, match=sentence):
        read_clip(path, contract(4))


@pytest.mark.parametrize("name", NAMES)
def test_good_videos_are_not_refused(name: str) -> None:
    assert read_clip(real_clip(name), contract(8)).shape[0] == 8


ALL_CODECS = {
    "hevc.mp4": ("libx265", "yuv420p"),
    "vp8.webm": ("libvpx", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "av1.mp4": ("libsvtav1", "yuv420p"),
    "ffv1.mkv": ("ffv1", "yuv420p"),
    "prores.mov": ("prores_ks", "yuv422p10le"),
    "mjpeg.avi": ("mjpeg", "yuvj420p"),
    "wmv2.wmv": ("wmv2", "yuv420p"),
    "flv1.flv": ("flv", "yuv420p"),
    "mpeg1.mpg": ("mpeg1video", "yuv420p"),
    "divx3.avi": ("msmpeg4", "yuv420p"),
    "raw.avi": ("rawvideo", "yuv420p"),
    "gif.gif": ("gif", "rgb8"),
    "png.mov": ("png", "rgb24"),
    "huffyuv.nut": ("huffyuv", "yuv422p"),
}


@pytest.mark.parametrize("name", ALL_CODECS)
def test_good_videos_of_all_kinds_are_not_refused(tmp_path: Path, name: str) -> None:
    codec, pix_fmt = ALL_CODECS[name]
    pictures = [moving_picture(i, 160, 120) for i in range(25)]
    path = make_picture_video(tmp_path / name, pictures, codec=codec, pix_fmt=pix_fmt)
    assert read_clip(path, contract(25)).shape == (25, 120, 160, 3)

"""`read_clip` against OpenCV's decoder, frame by frame, and against the arithmetic of color."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from real_clips import NAMES, real_clip
from videos import TURNS, contract, frame_numbers, make_picture_video, make_video, moving_picture, set_matrix

from vivit_export.runtime import read_clip


def opencv_frames(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    while True:
        found, frame = capture.read()
        if not found:
            break
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    capture.release()


def assert_every_frame_agrees(path: Path, num_frames: int) -> None:
    """All frames at once from us, one by one from OpenCV, which must not have one more."""
    ours = read_clip(path, contract(num_frames))
    theirs = opencv_frames(path)
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        assert mine.shape == other.shape
        if not np.array_equal(mine, other):
            difference = int(np.abs(mine.astype(np.int16) - other).max())
            pytest.fail(f"frame {number} differs by {difference}")
    assert number == num_frames - 1
    assert next(theirs, None) is None


LENGTHS = {"bigbuckbunny.mp4": 132, "bikes.mp4": 250, "carphone_distorted.mp4": 120, "carphone_pristine.mp4": 120}


@pytest.mark.parametrize("name", NAMES)
def test_real_clips(name: str) -> None:
    path = real_clip(name)
    num_frames = LENGTHS.get(name) or sum(1 for _ in opencv_frames(path))
    assert_every_frame_agrees(path, num_frames)


GENERATED: dict[str, dict[str, Any]] = {
    "landscape.mp4": {"size": (320, 240)},
    "portrait.mp4": {"size": (180, 320)},
    "large.mp4": {"size": (1920, 1080), "num_frames": 3},
    "odd444.mp4": {"size": (321, 243), "pix_fmt": "yuv444p"},
    "not-16.mkv": {"size": (322, 242)},
    "b-frames.mkv": {"codec_options": {"bf": "4", "g": "12"}},
    "broadcast.ts": {},
    "divx.avi": {"codec": "mpeg4", "codec_options": {"bf": "2"}},
    "camera.avi": {"codec": "mjpeg", "pix_fmt": "yuvj422p"},
    "studio.mkv": {"pix_fmt": "yuv422p"},
    "film.webm": {"codec": "libvpx-vp9"},
    "hd-colors.mp4": {"colorspace": 1},
    "full-range.mp4": {"pix_fmt": "yuvj420p"},
    "deep.mp4": {"pix_fmt": "yuv444p10le"},
}


def need_reference_of_colors() -> None:
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip(
            f"OpenCV {cv2.__version__} converts 10 bits and BT.709 in another way than FFmpeg 8; 5 is the reference"
        )


@pytest.mark.parametrize("name", GENERATED)
def test_generated_clips(tmp_path: Path, name: str) -> None:
    if name.startswith(("deep", "hd")):
        need_reference_of_colors()
    options = dict(GENERATED[name])
    (width, height), num_frames = options.pop("size", (160, 120)), options.pop("num_frames", 30)
    pictures = [moving_picture(i, width, height) for i in range(num_frames)]
    path = make_picture_video(tmp_path / name, pictures, **options)
    assert_every_frame_agrees(path, num_frames)
    ours = read_clip(path, contract(num_frames)).astype(np.float32)
    # The frame that carries a number is the one that was drawn with it.
    for number in (0, num_frames // 2, num_frames - 1):
        errors = [np.abs(ours[number] - picture).mean() for picture in pictures]
        assert int(np.argmin(errors)) == number


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_variable_frame_rate(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, variable_rate=True)
    assert_every_frame_agrees(path, 40)
    assert frame_numbers(np.stack(list(opencv_frames(path)))) == list(range(40))


@pytest.mark.parametrize("clockwise", TURNS)
def test_rotated_clips(tmp_path: Path, clockwise: int) -> None:
    path = make_video(tmp_path / "phone.mp4", marked=True)
    set_matrix(path, TURNS[clockwise])
    assert_every_frame_agrees(path, 40)


def test_deep_video_with_halved_chroma_differs_by_the_filter_alone(tmp_path: Path) -> None:
    """OpenCV interpolates that chroma by a cubic, PyAV linearly."""
    need_reference_of_colors()
    pictures = [moving_picture(i, 320, 240) for i in range(6)]
    path = make_picture_video(tmp_path / "deep.mp4", pictures, pix_fmt="yuv420p10le")
    with pytest.raises(pytest.fail.Exception, match="differs by"):
        assert_every_frame_agrees(path, 6)
    with av.open(str(path)) as container:
        cubic = [f.to_ndarray(format="rgb24", interpolation="BICUBIC") for f in container.decode(video=0)]
    for mine, other in zip(cubic, opencv_frames(path), strict=True):
        assert np.abs(mine.astype(int) - other).max() <= 5


# --- the rule of color ----------------------------------------------------------------------------

KR_KB = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}


def expected_rgb(planes: np.ndarray, matrix: str, full_range: bool, bits: int) -> np.ndarray:
    """The standards' formula in double precision on (3, h, w) of Y, Cb, Cr."""
    y, cb, cr = planes.astype(np.float64) / (1 << (bits - 8))
    if not full_range:
        y, cb, cr = (y - 16) * 255 / 219, 128 + (cb - 128) * 255 / 224, 128 + (cr - 128) * 255 / 224
    kr, kb = KR_KB[matrix]
    red, blue = y + 2 * (1 - kr) * (cr - 128), y + 2 * (1 - kb) * (cb - 128)
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    rgb: np.ndarray = np.clip(np.stack([red, green, blue], -1), 0, 255)
    return rgb


def stored_planes(frame: av.VideoFrame, halved: bool, bits: int) -> np.ndarray:
    """(3, h, w) of Y, Cb, Cr; halved chroma is repeated."""
    kind, planes = np.dtype("u1" if bits == 8 else "<u2"), list[np.ndarray]()
    for plane in frame.planes:
        rows = np.frombuffer(bytes(plane), kind).reshape(plane.height, -1)[:, : plane.width]
        planes.append(rows if not planes or not halved else rows.repeat(2, axis=0).repeat(2, axis=1))
    return np.stack(planes)


@pytest.mark.parametrize(
    ("pix_fmt", "colorspace", "matrix", "size"),
    [
        ("yuv420p", None, "601", (320, 240)),
        ("yuv420p", None, "601", (1280, 720)),  # undeclared is 601, though players guess 709 for HD
        ("yuv420p", 1, "709", (320, 240)),
        ("yuvj420p", None, "601", (320, 240)),
        ("yuv444p", 1, "709", (320, 240)),
        ("yuv444p10le", None, "601", (320, 240)),
        ("yuv444p10le", 1, "709", (320, 240)),
    ],
)
def test_color_follows_the_declared_matrix_and_range(
    tmp_path: Path, pix_fmt: str, colorspace: int | None, matrix: str, size: tuple[int, int]
) -> None:
    pictures = [moving_picture(i, *size) for i in range(2)]
    options = {"qp": "1", "preset": "ultrafast"}
    path = make_picture_video(
        tmp_path / "film.mp4", pictures, pix_fmt=pix_fmt, colorspace=colorspace, codec_options=options
    )
    bits = 10 if "10" in pix_fmt else 8
    with av.open(str(path)) as container:
        planes = [stored_planes(frame, "420" in pix_fmt, bits) for frame in container.decode(video=0)]
    ours = read_clip(path, contract(2))
    for mine, stored in zip(ours, planes, strict=True):
        error = np.abs(mine - expected_rgb(stored, matrix, "yuvj" in pix_fmt, bits))
        assert error.max() <= 3  # swscale's 8-bit way cuts each of three terms down to an integer
        assert error.mean() <= 1.2
        other = expected_rgb(stored, "709" if matrix == "601" else "601", "yuvj" in pix_fmt, bits)
        assert np.abs(mine - other).mean() > 3

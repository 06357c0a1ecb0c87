"""Pixels of the field cases (docs/field-cases.md), beside what was encoded, Pillow, and the standards for colors."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image
from videos import BLACK, STEP, contract, frame_numbers, make_picture_video, moving_picture

from vivit_export.contract import Clip, Preprocess
from vivit_export.runtime import Preprocessor, read_clip

Array = npt.NDArray[Any]
COLORS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (200, 30, 10),
    (16, 128, 235),
    (0, 0, 0),
    (255, 255, 255),
    (90, 90, 90),
]


def encode(
    path: Path,
    codec: str,
    form: str,
    frames: Iterable[av.VideoFrame],
    options: dict[str, str] | None = None,
    **told: Any,
) -> Path:
    """Write frames of 64x48 as they are; ``told`` are fields of the codec's context."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, form, options or {}
        for name, value in told.items():
            setattr(stream.codec_context, name, value)
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def mean_error(found: Array, expected: Array) -> float:
    return float(np.abs(found.astype(int) - expected.astype(int)).mean())


# --- sizes and forms -----------------------------------------------------------------------------------------


@pytest.mark.field_case("PyAV 423")
def test_a_width_that_does_not_divide_by_8(tmp_path: Path) -> None:
    pictures = [moving_picture(number, 1294, 964) for number in range(2)]
    path = make_picture_video(tmp_path / "a.mp4", pictures, pix_fmt="yuv444p", codec_options={"qp": "1"})
    clip = read_clip(path, contract(2))
    assert clip.shape == (2, 964, 1294, 3)
    for found, expected in zip(clip, pictures, strict=True):
        assert mean_error(found[:, -14:], expected[:, -14:]) < 1.5


@pytest.mark.field_case("PyAV 2274")
@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
def test_uncompressed_pictures_are_upright(tmp_path: Path, size: tuple[int, int]) -> None:
    pictures = [moving_picture(number, *size) for number in range(3)]
    path = make_picture_video(tmp_path / "a.avi", pictures, codec="rawvideo", pix_fmt="bgr24")
    np.testing.assert_array_equal(read_clip(path, contract(3)), pictures)


@pytest.mark.field_case("PyAV 132")
def test_an_animated_gif_is_what_pillow_shows(tmp_path: Path) -> None:
    pictures = [Image.fromarray(moving_picture(number, 64, 48)).quantize(64) for number in range(5)]
    path = tmp_path / "a.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, loop=0)
    with Image.open(path) as gif:
        shown = []
        for number in range(5):
            gif.seek(number)
            shown.append(np.asarray(gif.convert("RGB")))
    np.testing.assert_array_equal(read_clip(path, contract(5)), shown)


@pytest.mark.field_case("vision 8419")
def test_what_a_gif_leaves_open_is_white(tmp_path: Path) -> None:
    pictures = []
    for number in range(3):
        picture = Image.new("P", (32, 32), 0)
        picture.putpalette([255, 0, 255, 10, 200, 30] + [0] * 750)
        picture.paste(1, (4 + number, 4, 16, 16))
        pictures.append(picture)
    path = tmp_path / "a.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, transparency=0, disposal=2)
    clip = read_clip(path, contract(3))
    for number, frame in enumerate(clip):
        assert (frame[4:16, 4 + number : 16] == (10, 200, 30)).all()
        assert (frame[20:] == 255).all()


@pytest.mark.field_case("flowframes 34")
def test_what_an_alpha_channel_hides_is_shown(tmp_path: Path) -> None:
    images = np.empty((40, 48, 64, 4), np.uint8)
    images[..., :3] = (BLACK + STEP * np.arange(40))[:, None, None, None]
    images[..., 3] = 6 * np.arange(40)[:, None, None]
    frames = (av.VideoFrame.from_ndarray(image, format="rgba").reformat(format="yuva420p") for image in images)
    path = encode(tmp_path / "a.webm", "libvpx-vp9", "yuva420p", frames, {"auto-alt-ref": "0"})
    assert b"\x53\xc0\x81\x01" in path.read_bytes()  # AlphaMode 1
    assert frame_numbers(read_clip(path, contract(40))) == list(range(40))


@pytest.mark.field_case("PyAV 77")
def test_sixteen_bits_of_gray(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    rolled = np.stack([np.roll(levels, number) for number in range(3)])
    frames = (av.VideoFrame.from_ndarray(picture, format="gray16le") for picture in rolled)
    clip = read_clip(encode(tmp_path / "a.mkv", "ffv1", "gray16le", frames), contract(3))
    assert np.abs(clip - rolled[..., None] / 257).max() < 1.5  # FFmpeg goes by way of fewer bits


@pytest.mark.field_case("torchcodec 733")
def test_pixels_that_are_not_square_are_taken_as_they_are_stored(tmp_path: Path) -> None:
    clips = []
    for aspect in (Fraction(1), Fraction(16, 11)):
        frames = (av.VideoFrame.from_ndarray(moving_picture(number, 64, 48), format="rgb24") for number in range(4))
        path = tmp_path / f"{aspect.numerator}.mp4"
        encode(path, "libx264", "yuv420p", frames, sample_aspect_ratio=aspect)
        with av.open(str(path)) as container:
            assert container.streams.video[0].sample_aspect_ratio == aspect
        clips.append(read_clip(path, contract(4)))
    np.testing.assert_array_equal(clips[0], clips[1])


@pytest.mark.field_case("transformers 21638")
@pytest.mark.parametrize("side", [1, 2])
def test_frames_of_a_pixel_or_four(side: int) -> None:
    preprocessor = Preprocessor(Clip(4, 32, 32, (1, 16, 16)), Preprocess(shortest_edge=36, crop_size=(32, 32)))
    pixels = preprocessor(np.full((4, side, side, 3), 255, np.uint8))
    assert pixels.shape == (1, 4, 3, 32, 32) and (pixels == pixels.flat[0]).all()


# --- colors --------------------------------------------------------------------------------------------------

KR_KB = {Colorspace.ITU709: (0.2126, 0.0722), Colorspace.ITU601: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Weights of red and blue in luma: Rec. ITU-R BT.709, BT.601, BT.2020 with non-constant luminance (9)."""
COLOR_RANGES = (ColorRange.MPEG, ColorRange.JPEG)


def to_yuv(rgb: tuple[int, int, int], matrix: int, is_full: bool, bits: int) -> list[int]:
    """Y', Cb, Cr of a color, by the formulas of BT.709, section 3, with the ranges of section 5."""
    kr, kb = KR_KB[matrix]
    red, green, blue = (value / 255 for value in rgb)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    differences = [(blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)]
    unit = 1 << (bits - 8)
    if is_full:
        top = (1 << bits) - 1
        return [round(top * luma), *(min(top, round(top * d + 128 * unit)) for d in differences)]
    return [round((219 * luma + 16) * unit), *(round((224 * d + 128) * unit) for d in differences)]


def write_colors(path: Path, codec: str, form: str, matrix: int | None, is_full: bool, options: dict[str, str]) -> Path:
    """Frames of one color each, made of the numbers that `to_yuv` gives; without a matrix, untagged BT.601."""
    bits, kind = (10, np.dtype(np.uint16)) if "10" in form else (8, np.dtype(np.uint8))
    told = {} if matrix is None else {"colorspace": matrix, "color_range": COLOR_RANGES[is_full]}

    def frame_of(color: tuple[int, int, int]) -> av.VideoFrame:
        frame = av.VideoFrame(64, 48, form)
        numbers = to_yuv(color, Colorspace.ITU601 if matrix is None else matrix, is_full, bits)
        for plane, number in zip(frame.planes, numbers, strict=True):
            plane.update(np.full(plane.buffer_size // kind.itemsize, number, kind).tobytes())
        for name, value in told.items():
            setattr(frame, name, value)
        return frame

    return encode(path, codec, form, map(frame_of, COLORS), options, **told)


X264, X265 = {"qp": "1", "bf": "0"}, {"x265-params": "qp=1:bframes=0:log-level=none"}
FORMS: dict[str, tuple[str, str, str, int | None, bool, dict[str, str]]] = {
    "torchcodec 1262": ("full.mp4", "libx264", "yuv444p", Colorspace.ITU709, True, X264),
    "torchcodec 1277": ("untagged.avi", "mjpeg", "yuvj420p", None, True, {"qmin": "1", "qmax": "1"}),
    "audio 3331": ("prores.mov", "prores_ks", "yuv422p10le", Colorspace.ITU709, False, {}),
    "torchcodec 598": ("deep.mp4", "libx265", "yuv420p10le", 9, False, X265),
    "torchcodec 939": (
        "hdr.mkv",
        "libx265",
        "yuv420p10le",
        9,
        False,
        {"x265-params": X265["x265-params"] + ":hdr10=1"},
    ),
}


@pytest.mark.parametrize(
    "form", [pytest.param(form, id=case, marks=pytest.mark.field_case(case)) for case, form in FORMS.items()]
)
def test_colors_are_those_of_the_standard(tmp_path: Path, form: tuple[Any, ...]) -> None:
    name, *rest = form
    clip = read_clip(write_colors(tmp_path / name, *rest), contract(len(COLORS)))
    assert np.abs(clip.astype(int) - np.array(COLORS)[:, None, None]).max() <= 3


@pytest.mark.field_case("decord 182")
def test_motion_jpeg_is_what_pillow_shows(tmp_path: Path) -> None:
    pictures = [moving_picture(number, 64, 48) for number in range(3)]
    path = make_picture_video(tmp_path / "a.avi", pictures, codec="mjpeg", pix_fmt="yuvj444p")
    with av.open(str(path)) as container:
        files = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for number, file in enumerate(files):
        (tmp_path / f"{number}.jpg").write_bytes(file)
        with Image.open(tmp_path / f"{number}.jpg") as image:
            assert mean_error(read_clip(path, contract(3))[number], np.asarray(image.convert("RGB"))) < 1

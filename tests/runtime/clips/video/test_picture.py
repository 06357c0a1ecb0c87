"""Orientation and color of frames from files; the colors that are converted are in test_video_second_decoder.py."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from videos import ORIENTATIONS, contract, make_picture_video, make_video, moving_picture, set_matrix, shown_by

from vivit_export.errors import ClipError
from vivit_export.runtime import read_clip


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_display_matrix_is_applied(tmp_path: Path, name: str) -> None:
    """Phones store what the sensor saw, and how it is turned; the front camera's is mirrored, too."""
    path = make_video(tmp_path / "phone.mp4", marked=True)
    stored = read_clip(path, contract(4))
    set_matrix(path, ORIENTATIONS[name])
    np.testing.assert_array_equal(read_clip(path, contract(4)), shown_by(ORIENTATIONS[name], stored))


def test_a_matrix_of_zeros_turns_nothing(tmp_path: Path) -> None:
    path = make_video(tmp_path / "phone.mp4", marked=True)
    stored = read_clip(path, contract(4))
    set_matrix(path, (0, 0, 0, 0))
    np.testing.assert_array_equal(read_clip(path, contract(4)), stored)


def test_other_angles_are_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "tilted.mp4")
    set_matrix(path, (0.7071, 0.7071, -0.7071, 0.7071))
    with pytest.raises(ClipError, match=r"tilted\.mp4 is turned by 45 degrees clockwise; only quarter turns"):
        read_clip(path, contract(4))


def make_turned_pictures(path: Path, orientation: int) -> Path:
    """Write a video of JPEG pictures whose EXIF data state an orientation."""
    picture = Image.fromarray(moving_picture(0, 96, 64))
    exif = picture.getexif()
    exif[0x112] = orientation
    data = io.BytesIO()
    picture.save(data, "JPEG", exif=exif)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number in range(5):
            packet = av.Packet(data.getvalue())
            packet.pts = packet.dts = number
            packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, 25), True, stream
            container.mux(packet)
    return path


def test_side_data_that_pyav_does_not_know_is_no_obstacle(tmp_path: Path) -> None:
    stored = read_clip(make_turned_pictures(tmp_path / "upright.avi", 1), contract(5))
    turned = make_turned_pictures(tmp_path / "turned.avi", 6)  # to be shown a quarter turn clockwise
    with av.open(str(turned)) as container, pytest.raises(ValueError, match="is not a valid Type"):
        _ = next(container.decode(video=0)).side_data
    np.testing.assert_array_equal(read_clip(turned, contract(5)), np.rot90(stored, -1, (1, 2)))


# ffmpeg 9 refuses exactly these, too ("scale: Operation not supported").
NO_CONVERSION = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    14: "ICtCp",
    15: "IPT-C2",
    12: "derived from the primaries, luminance not constant",
    13: "derived from the primaries, constant luminance",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}


@pytest.mark.parametrize("number", range(18))
def test_every_color_matrix_is_converted_or_named(tmp_path: Path, number: int) -> None:
    pictures = [moving_picture(i, 96, 64) for i in range(4)]
    path = make_picture_video(tmp_path / "film.mkv", pictures, codec="mpeg4", colorspace=number)
    with av.open(str(path)) as container:
        found = next(container.decode(video=0)).colorspace
    assert found == number or number in (0, 2, 3)  # the writer's own choice where nothing is said
    name = NO_CONVERSION.get(number)
    if name is None:
        assert read_clip(path, contract(4)).shape == (4, 64, 96, 3)
        return
    with pytest.raises(ClipError, match=rf"film\.mkv declares the color matrix {number} \({name}\), from which there"):
        read_clip(path, contract(4))

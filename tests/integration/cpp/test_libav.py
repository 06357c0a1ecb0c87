"""The reader of other videos, built against FFmpeg's libraries, beside the Python runtime."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from capabilities import missing
from cpp_project import TESTS, Cpp, Libraries, run

from vivit_export import demo
from vivit_export.errors import VivitExportError
from vivit_export.runtime.clips.video import read_sampled

pytestmark = pytest.mark.needs_onnxruntime


@dataclass(frozen=True)
class Libav:
    """What was built with FFmpeg's libraries.

    Attributes:
        vivit_run: the example program.
        frames: the test program, tests/cpp/libav.
        env: with which they find the libraries.
    """

    vivit_run: Path
    frames: Path
    env: dict[str, str]


@pytest.fixture(scope="module")
def libav(libraries: Libraries, cpp: Cpp, tmp_path_factory: pytest.TempPathFactory) -> Libav:
    """The reader of other videos, built against FFmpeg's libraries as a user's pkg-config finds them."""
    if shutil.which("pkg-config") is None:
        missing("libav", "pkg-config is not installed")
    home, lib = tmp_path_factory.mktemp("libav"), libraries.usr.parent / "ffmpeg/lib"
    env = {**os.environ, "PKG_CONFIG_PATH": str(lib / "pkgconfig"), "LD_LIBRARY_PATH": str(lib)}
    project: list[str | Path] = [
        "cmake",
        "-S",
        cpp.home / "project",
        *libraries.cmake(),
        "-DVIVIT_LIBAV=ON",
        "-DCMAKE_CXX_FLAGS=-Werror",
    ]
    run(*project, "-B", home / "headers", "-DVIVIT_EXAMPLE=OFF", f"-DCMAKE_INSTALL_PREFIX={home / 'prefix'}", env=env)
    run("cmake", "--install", home / "headers", env=env)
    run(*project, "-B", home / "build", env=env)
    run("cmake", "-S", TESTS / "libav", "-B", home / "frames", libraries.cmake(home / "prefix")[0], env=env)
    builds = [subprocess.Popen(["cmake", "--build", home / name]) for name in ("build", "frames")]
    assert [build.wait() for build in builds] == [0, 0]
    return Libav(home / "build/vivit-run", home / "frames/frames", env)


def test_every_frame_of_other_videos_is_pythons_bit_for_bit(libav: Libav, tmp_path: Path) -> None:
    videos = sorted(demo.clips_path().glob("*.mp4"))
    said = run(libav.frames, tmp_path / "rgb", *videos, env=libav.env).splitlines()
    expected = [read_sampled(video, np.arange) for video in videos]
    assert said == ["{} {} {}".format(len(frames), *frames.shape[2:0:-1]) for frames in expected]
    assert (tmp_path / "rgb").read_bytes() == b"".join(frames.tobytes() for frames in expected)


def test_what_is_no_other_video_is_refused_as_in_python(libav: Libav, tmp_path: Path) -> None:
    whole = (demo.clips_path() / "up_240x426_30fps.mp4").read_bytes()
    paths = []
    for name, data in {"text": b"no video at all\n", "noise": b"\0noise", "cut.mp4": whole[:3000]}.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    said = run(libav.frames, tmp_path / "rgb", *paths, tmp_path / "none", tmp_path, env=libav.env).splitlines()
    for path, sentence in zip([*paths, tmp_path / "none", tmp_path], said, strict=True):
        with pytest.raises(VivitExportError) as refused:
            read_sampled(path, np.arange)
        assert sentence == str(refused.value)


def test_a_video_whose_end_is_missing_is_refused_as_in_python(libav: Libav, tmp_path: Path) -> None:
    import av

    source = demo.clips_path() / "up_240x426_30fps.mp4"
    with av.open(source) as container:
        starts = sorted(packet.pos or 0 for packet in container.demux(video=0) if packet.size)
    paths = [tmp_path / "between.mp4", tmp_path / "inside.mp4"]  # of two packets, of one
    for path, end in zip(paths, (starts[20], starts[20] + 5), strict=True):
        path.write_bytes(source.read_bytes()[:end])
    said = run(libav.frames, tmp_path / "rgb", *paths, env=libav.env).splitlines()
    for path, sentence, part in zip(paths, said, ("its header states 1.5 s", "its last data"), strict=True):
        with pytest.raises(VivitExportError, match=part) as refused:
            read_sampled(path, np.arange)
        assert sentence == str(refused.value)


def test_other_videos_are_recognized_where_libav_is(cpp: Cpp, libav: Libav) -> None:
    video = demo.clips_path() / "up_240x426_30fps.mp4"
    found = run(libav.vivit_run, cpp.bundle, video, "--repeat", "1", env=libav.env).splitlines()
    expected = run(cpp.vivit_run, cpp.bundle, cpp.video, "--repeat", "1").splitlines()
    assert found[0].startswith(f"{video}: 45 frames of 240x426, on ")
    assert found[1:6] == expected[1:6]

"""The C++ library deployed, built and installed as a user would: once, however many processes run the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import Bundles, add_plan
from capabilities import fetched, missing
from cpp_project import BUILD_SECONDS, TESTS, Cpp, Libav, Libraries, onnxruntime_release, run, write_y4m
from filelock import FileLock
from shared import shared_folder

from vivit_export import demo
from vivit_export.bundle.engines import Verification
from vivit_export.deploy.cpp.deploy import deploy_cpp
from vivit_export.records import to_json
from vivit_export.runtime.clips.video.frames import read_sampled
from vivit_export.runtime.session.device import gpu_driver


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    """What the C++ code is compiled against, on a machine on which nothing was installed for this."""
    if lacking := [tool for tool in ("cmake", "g++", "make") if shutil.which(tool) is None]:
        missing("cpp", f"{', '.join(lacking)} is not installed")
    usr = fetched("fetch_cpp_libraries.py", "cpp") / "usr"
    return Libraries(usr, onnxruntime_release(tmp_path_factory.mktemp("onnxruntime"), usr))


@pytest.fixture(scope="session")
def cpp(libraries: Libraries, bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Cpp:
    """The project deployed, built and installed; the test programs built against the installed package."""
    home = shared_folder(tmp_path_factory) / "cpp"
    _build_once(home, lambda: _build(home, libraries, bundles))
    return Cpp(home)


@pytest.fixture(scope="session")
def libav(libraries: Libraries, cpp: Cpp, tmp_path_factory: pytest.TempPathFactory) -> Libav:
    """The reader of other videos, built against FFmpeg's libraries as a user's pkg-config finds them."""
    if shutil.which("pkg-config") is None:
        missing("libav", "pkg-config is not installed")
    home, lib = shared_folder(tmp_path_factory) / "libav", libraries.usr.parent / "ffmpeg/lib"
    env = {**os.environ, "PKG_CONFIG_PATH": str(lib / "pkgconfig"), "LD_LIBRARY_PATH": str(lib)}
    _build_once(home, lambda: _build_libav(home, libraries, cpp, env))
    return Libav(home / "build/vivit-run", home / "frames/frames", env)


def _build_once(home: Path, build: Callable[[], None]) -> None:
    with FileLock(home.with_name(f"{home.name}.lock")):
        if home.exists():  # another process has built it
            return
        work = home.with_name(f"{home.name}-failed")
        shutil.rmtree(work, ignore_errors=True)
        home.mkdir()
        try:
            build()
        except BaseException:
            home.rename(work)
            raise


def _build(home: Path, libraries: Libraries, bundles: Bundles) -> None:
    deploy_cpp(bundles.demo(), home / "project")
    _make_engines(bundles, home / "engines")
    _make_video(home / "video")
    prefix = f"-DCMAKE_INSTALL_PREFIX={home / 'prefix'}"
    run("cmake", "-S", home / "project", "-B", home / "headers", *libraries.cmake(), prefix, "-DVIVIT_EXAMPLE=OFF")
    run("cmake", "--install", home / "headers")
    found = libraries.cmake(home / "prefix")
    run("cmake", "-S", TESTS, "-B", home / "tests", *found, f"-DVIVIT_TEST_BUNDLES={home / 'engines'}")
    run("cmake", "-S", TESTS / "consumer", "-B", home / "consumer", *found)
    run("cmake", "-S", home / "project", "-B", home / "build", *libraries.cmake(), "-DCMAKE_CXX_FLAGS=-Werror")
    builds = [subprocess.Popen(["cmake", "--build", home / name]) for name in ("build", "consumer")]
    run("cmake", "--build", home / "tests", "-j", str(os.cpu_count() or 1), timeout=BUILD_SECONDS)
    assert [build.wait() for build in builds] == [0, 0]


def _build_libav(home: Path, libraries: Libraries, cpp: Cpp, env: dict[str, str]) -> None:
    project: list[str | Path] = ["cmake", "-S", cpp.home / "project", *libraries.cmake()]
    # -O3, with which the project is built without libav, takes twice as long; `frames` compares without optimization.
    project += ["-DVIVIT_LIBAV=ON", "-DCMAKE_CXX_FLAGS=-Werror", "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG"]
    run(*project, "-B", home / "headers", "-DVIVIT_EXAMPLE=OFF", f"-DCMAKE_INSTALL_PREFIX={home / 'prefix'}", env=env)
    run("cmake", "--install", home / "headers", env=env)
    run(*project, "-B", home / "build", env=env)
    run("cmake", "-S", TESTS / "libav", "-B", home / "frames", libraries.cmake(home / "prefix")[0], env=env)
    builds = [subprocess.Popen(["cmake", "--build", home / name]) for name in ("build", "frames")]
    assert [build.wait() for build in builds] == [0, 0]


def _make_video(folder: Path) -> None:
    """Write a demo clip as files that need no decoder."""
    folder.mkdir()
    frames = read_sampled(demo.clips_path() / "up_240x426_30fps.mp4", lambda count: np.arange(count))
    np.save(folder / "up.npy", frames)
    frames.tofile(folder / "up.rgb")
    write_y4m(folder / "up.y4m", frames.shape[2], frames.shape[1], "420jpeg", seed=1, count=20)


def _make_engines(bundles: Bundles, folder: Path) -> None:
    """Make bundles with made-up engines for the double in tests/cpp/fake."""
    folder.mkdir()
    for flavour, version in (("tensorrt", "11.4.0.106"), ("tensorrt-rtx", "1.7.1.116")):
        bundle = bundles.copy(folder / flavour)
        common = {"flavour": flavour, "version": version}
        add_plan(bundle, "first", b"plan", **common)
        add_plan(bundle, "second", b"plan", **common, sms=[100], profiles=[{"min": 2, "opt": 2, "max": 4}])
        add_plan(bundle, "stale", b"plan", **common, onnx_sha256="0" * 64)
        checked = bundles.copy(folder / f"{flavour}-checked", check=True, num_clips=3)
        add_plan(checked, "first", b"plan", **common)
        drivers = {gpu_driver(13000), "CUDA 13.0"}
        verified_on = [to_json(Verification("NVIDIA H100 80GB HBM3", driver, {}, 3, ())) for driver in sorted(drivers)]
        add_plan(checked, "verified", b"plan", **common, verified_on=verified_on)

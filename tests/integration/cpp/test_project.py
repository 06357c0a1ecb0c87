"""The CMake project: built, installed, and found by another one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from cpp_project import TESTS, Cpp, Libraries, run

import vivit_export
from vivit_export.deploy.cpp.deploy import PROJECT

pytestmark = pytest.mark.needs_onnxruntime


def test_the_tensorrt_session_passes_its_tests_under_the_sanitizers(cpp: Cpp) -> None:
    run("ctest", "--output-on-failure", cwd=cpp.home / "tests")


def test_ten_lines_find_the_package_and_use_it(cpp: Cpp) -> None:
    assert run(cpp.home / "consumer/consumer", cpp.bundle, cpp.video) == "up\n"


def test_a_component_that_was_not_installed_is_told(cpp: Cpp, libraries: Libraries, tmp_path: Path) -> None:
    text = (TESTS / "consumer/CMakeLists.txt").read_text().replace("COMPONENTS onnxruntime", "COMPONENTS tensorrt")
    (tmp_path / "CMakeLists.txt").write_text(text)
    command: list[str | Path] = [
        "cmake",
        "-S",
        tmp_path,
        "-B",
        tmp_path / "build",
        *libraries.cmake(cpp.home / "prefix"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "vivit was installed without its component tensorrt" in done.stderr


def test_an_optional_component_without_its_library_is_left_out(cpp: Cpp, libraries: Libraries, tmp_path: Path) -> None:
    """Installed where FFmpeg's libraries are, and used where they are not."""
    ffmpeg = {**os.environ, "PKG_CONFIG_PATH": str(libraries.usr.parent / "ffmpeg/lib/pkgconfig")}
    command: list[str | Path] = ["cmake", "-S", cpp.home / "project", "-B", tmp_path / "built", *libraries.cmake()]
    command += ["-DVIVIT_EXAMPLE=OFF", "-DVIVIT_LIBAV=ON", f"-DCMAKE_INSTALL_PREFIX={tmp_path / 'prefix'}"]
    run(*command, env=ffmpeg)
    run("cmake", "--install", tmp_path / "built")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(consumer LANGUAGES CXX)\n"
        "find_package(vivit REQUIRED COMPONENTS onnxruntime ${MORE} libav)\n"
        'message(STATUS "found: ${vivit_onnxruntime_FOUND} ${vivit_libav_FOUND}")\n'
        'if(TARGET vivit::libav)\n  message(STATUS "the target is there")\nendif()\n'
    )
    consumer: list[str | Path] = ["cmake", "-S", tmp_path, *libraries.cmake(tmp_path / "prefix")]
    optional = "-DMORE=OPTIONAL_COMPONENTS"
    without = run(*consumer, "-B", tmp_path / "without", optional)
    assert "found: TRUE FALSE" in without and "the target is there" not in without
    assert "the target is there" in run(*consumer, "-B", tmp_path / "with", optional, env=ffmpeg)
    required = subprocess.run([*consumer, "-B", tmp_path / "required"], capture_output=True, text=True, check=False)
    assert required.returncode
    assert "install pkg-config and the development files of libavformat" in re.sub(r"\s+", " ", required.stderr)


def test_the_project_is_a_part_of_another_one(cpp: Cpp, libraries: Libraries, tmp_path: Path) -> None:
    """Its targets have the names of the installed ones; nothing else is built or installed with it."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(app LANGUAGES CXX)\n"
        f"add_subdirectory({cpp.home / 'project'} vivit)\n"
        "add_executable(app main.cpp)\ntarget_link_libraries(app PRIVATE vivit::vivit vivit::onnxruntime)\n"
        "install(TARGETS app)\n"
    )
    # Not the whole library, which other tests compile: that the headers are found, and the libraries are linked.
    (tmp_path / "main.cpp").write_text(
        "#include <onnxruntime_cxx_api.h>\n#include <vivit/detail/manifest/sha256.hpp>\n"
        "int main() { return VIVIT_WITH_ONNXRUNTIME - 1 + !OrtGetApiBase() + EVP_MD_size(EVP_sha256()) - 32; }\n"
    )
    build, prefix = tmp_path / "build", tmp_path / "prefix"
    run("cmake", "-S", tmp_path, "-B", build, *libraries.cmake(), f"-DCMAKE_INSTALL_PREFIX={prefix}")
    run("cmake", "--build", build)
    run(build / "app")
    assert not list(build.rglob("vivit-run"))
    run("cmake", "--install", build)
    assert [path.name for path in prefix.rglob("*") if path.is_file()] == ["app"]


def test_tensorrt_is_found_where_its_root_says(cpp: Cpp, libraries: Libraries, tmp_path: Path) -> None:
    root, build, prefix = tmp_path / "TensorRT", tmp_path / "build", tmp_path / "prefix"
    command: list[str | Path] = ["cmake", "-S", cpp.home / "project", "-B", build, *libraries.cmake()]
    command += ["-DVIVIT_EXAMPLE=OFF", "-DVIVIT_TENSORRT=ON"]
    command += [f"-DCMAKE_MODULE_PATH={TESTS / 'fake/cmake'}", f"-DCMAKE_INSTALL_PREFIX={prefix}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "unpack TensorRT and pass its folder as -DTENSORRT_ROOT" in re.sub(r"\s+", " ", done.stderr)
    (root / "lib").mkdir(parents=True)
    (root / "include").symlink_to(TESTS / "fake")
    run("g++", "-shared", "-x", "c++", "/dev/null", "-o", root / "lib/libnvinfer.so")
    run(*command, f"-DTENSORRT_ROOT={root}")
    run("cmake", "--install", build)
    source = tmp_path / "consumer"
    source.mkdir()
    text = (TESTS / "consumer/CMakeLists.txt").read_text().replace("onnxruntime", "tensorrt")
    (source / "CMakeLists.txt").write_text(text.replace("main.cpp", "tensorrt.cpp"))
    # Not the whole library, which the TensorRT tests compile: that the headers are found, and the library is linked.
    (source / "tensorrt.cpp").write_text(
        "#include <NvInfer.h>\n#include <vivit/errors.hpp>\nint main() { return VIVIT_WITH_TENSORRT - 1; }\n"
    )
    found = [libraries.cmake(prefix)[0], f"-DTENSORRT_ROOT={root}", command[-2]]
    run("cmake", "-S", source, "-B", tmp_path / "b", *found)
    run("cmake", "--build", tmp_path / "b")


def test_the_version_is_the_distributions() -> None:
    assert f"project(vivit VERSION {vivit_export.__version__} " in (PROJECT / "CMakeLists.txt").read_text()

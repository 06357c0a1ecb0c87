"""The CMake project: built, installed, and found by another one."""

from __future__ import annotations

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

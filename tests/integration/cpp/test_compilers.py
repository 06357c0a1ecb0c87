"""The headers and the example as other people's compilers see them: no warning, and each header stands by itself."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cpp_project import TESTS, WARNINGS, Libraries, find_clang, run

from vivit_export.deploy.cpp.deploy import PROJECT

pytestmark = pytest.mark.needs_onnxruntime

INCLUDE = PROJECT / "include"
COMPONENTS = ("-DVIVIT_WITH_ONNXRUNTIME", "-DVIVIT_WITH_TENSORRT", "-DVIVIT_WITH_LIBAV")

# What other people's projects ask for, though this one's own targets do not.
STRICTER = ("-Wsign-conversion", "-Wdouble-promotion", "-Wnon-virtual-dtor", "-DJSON_USE_IMPLICIT_CONVERSIONS=0")


@pytest.mark.parametrize("standard", ["c++17", "c++20"])
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_no_compiler_warns(libraries: Libraries, compiler: str, standard: str) -> None:
    command = find_clang() if compiler == "clang++" else [compiler]
    flags = [f"-std={standard}", "-fsyntax-only", *WARNINGS, *STRICTER, *COMPONENTS, *includes(libraries)]
    run(*command, *flags, PROJECT / "examples/vivit_run.cpp")  # all components: all headers


def test_every_header_can_be_included_first(libraries: Libraries, tmp_path: Path) -> None:
    empty = tmp_path / "empty.cpp"
    empty.touch()
    headers = sorted((INCLUDE / "vivit").rglob("*.hpp"))
    assert len(headers) > 30
    flags = ["-std=c++17", "-fsyntax-only", *WARNINGS, *includes(libraries)]
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run, "g++", *flags, "-include", header, empty) for header in headers]:
            done.result()


def test_declarations_show_nothing_of_other_libraries() -> None:
    """nlohmann/json and OpenSSL are read in detail/, and no public header has their names."""
    for header in (INCLUDE / "vivit").glob("*.hpp"):
        declarations = re.sub(r'//.*|"[^"]*"', "", header.read_text())
        assert not re.search(r"nlohmann|openssl|\bjson\b|EVP_", declarations), header.name


def includes(libraries: Libraries) -> list[str]:
    """Our headers, whose warnings count, and those of the libraries and of the double of TensorRT."""
    return [f"-I{INCLUDE}", *libraries.includes(), "-isystem", str(TESTS / "fake")]

"""Objects with different components in one program: each opens what any of them has, and none contradicts another."""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from pathlib import Path

import pytest
from cpp_project import TESTS, Cpp, Libraries, run

from vivit_export.deploy.cpp.deploy import PROJECT

pytestmark = pytest.mark.needs_onnxruntime

INCLUDE = PROJECT / "include"


@pytest.mark.parametrize("program", ["components", "components_reversed"])
def test_an_object_without_components_opens_what_the_others_have(cpp: Cpp, program: str) -> None:
    bundle = cpp.home / "engines/tensorrt"
    said = run(
        *(cpp.home / "tests" / program, bundle, "tensorrt", "onnxruntime-cpu", "", "tensorrt-rtx"),
        env={**os.environ, "VIVIT_TEST_BUNDLE": str(bundle)},
    ).splitlines()
    assert sorted(said[:2]) == ["before main: onnxruntime-cpu", "before main: tensorrt"]
    assert said[2].split() == ["tensorrt", "onnxruntime-cuda", "onnxruntime-cpu"]  # the order of preference
    assert said[3:6] == ["tensorrt", "onnxruntime-cpu", "tensorrt"]
    assert "tensorrt-rtx was requested but is not available: this program was built without it" in said[6]


def test_a_program_without_components_says_so_for_every_engine(cpp: Cpp) -> None:
    said = run(cpp.home / "tests/components_none", cpp.bundle, "", "onnxruntime-cpu").splitlines()
    reason = "this program was built without it; configure with -DVIVIT_"
    tensorrt, onnxruntime = reason + "TENSORRT=ON -DTENSORRT_ROOT=FOLDER", reason + "ONNXRUNTIME=ON"
    assert not said[0].split()
    assert said[1] == (
        f"no engine can run this bundle here: tensorrt: {tensorrt}; tensorrt-rtx: {tensorrt}; "
        f"onnxruntime-cuda: {onnxruntime}; onnxruntime-cpu: {onnxruntime}"
    )
    assert said[2] == f"onnxruntime-cpu was requested but is not available: {onnxruntime}"


def test_no_header_has_another_text_with_other_components(libraries: Libraries, tmp_path: Path) -> None:
    """The one-definition rule: what two objects have in common consists of the same tokens in both."""
    everything = ("VIVIT_WITH_ONNXRUNTIME", "VIVIT_WITH_TENSORRT", "VIVIT_WITH_LIBAV")
    (tmp_path / "all.cpp").write_text("#include <vivit/vivit.hpp>\n")
    seen: dict[str, set[str]] = defaultdict(set)
    for components in itertools.chain.from_iterable(itertools.combinations(everything, n) for n in range(4)):
        defines = [f"-D{name}" for name in components]
        for name, text in _texts(libraries, tmp_path / "all.cpp", *defines).items():
            seen[name].add(text)
    assert {"open.hpp", "session.hpp", "detail/pixels/loops.hpp", "onnxruntime.hpp", "tensorrt.hpp"} <= set(seen)
    assert [name for name, texts in seen.items() if len(texts) > 1] == []


def _texts(libraries: Libraries, source: Path, *flags: str) -> dict[str, str]:
    """What the preprocessor leaves of each of our headers."""
    includes = [f"-I{INCLUDE}", *libraries.includes(), f"-I{TESTS / 'fake'}"]
    texts: dict[str, str] = defaultdict(str)
    name = ""
    for line in run("g++", "-std=c++17", "-E", *flags, *includes, source).splitlines():
        if marker := re.match(r'# \d+ "(.*)"', line):
            path = Path(marker[1])
            name = str(path.relative_to(INCLUDE / "vivit")) if path.is_relative_to(INCLUDE) else ""
        elif name and line.strip():
            texts[name] += line + "\n"
    return texts

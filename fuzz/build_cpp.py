"""Compile ``cpp/readers.cpp`` with libFuzzer and the sanitizers of addresses and of undefined behavior.

It needs clang++; ``tools/`` fetches that, its runtime and the libraries, and nothing is installed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_INCLUDE = ROOT / "vivit_export/deploy/cpp/project/include"
_SOURCE = Path(__file__).parent / "cpp/readers.cpp"
_FLAGS = (
    "-std=c++17",
    "-O1",
    "-g1",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-sanitize=null,alignment,vptr,object-size",
)
_WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")


def version_of(clang: Sequence[str | Path]) -> int:
    """Return the major version of a compiler."""
    told = subprocess.run([*clang, "-dumpversion"], check=True, capture_output=True, text=True).stdout
    return int(told.partition(".")[0])


def build(clang: Sequence[str | Path], runtime: Path, libraries: Path, includes: Sequence[str], folder: Path) -> Path:
    """Compile the program to ``folder`` and return it.

    Args:
        clang: how clang++ is called.
        runtime: what ``tools/fetch_clang_runtime.py`` fetched for it.
        libraries: ``usr`` of what ``tools/fetch_cpp_libraries.py`` fetched.
        includes: what the compiler must be told to find the headers of other libraries.
        folder: is created.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    program = folder / "readers"
    (crypto,) = (path.parent for path in libraries.glob("lib/**/libcrypto.so"))
    command: list[str | Path] = [*clang, *_FLAGS, *_WARNINGS, f"-resource-dir={_resources(clang, runtime, folder)}"]
    command += [f"-I{_INCLUDE}", *includes, _SOURCE, "-o", program, f"-L{crypto}", f"-Wl,-rpath,{crypto}", "-lcrypto"]
    subprocess.run(command, check=True)
    return program


def _resources(clang: Sequence[str | Path], runtime: Path, folder: Path) -> Path:
    """Make a folder like clang's own, with its headers and the runtime libraries, which come in another package."""
    told = subprocess.run([*clang, "-print-resource-dir"], check=True, capture_output=True, text=True)
    own = Path(told.stdout.strip())
    made = folder / "resources"
    made.mkdir(parents=True, exist_ok=True)
    (lib,) = runtime.glob("usr/lib/llvm-*/lib/clang/*/lib")
    for name, target in {"include": own / "include", "lib": lib}.items():
        (made / name).unlink(missing_ok=True)
        (made / name).symlink_to(target)
    return made

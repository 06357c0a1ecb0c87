"""Fuzz targets one after the other, each for some time, and write what was found to ``benchmarks/results/reliability``.

    python fuzz/run_fuzzers.py [TARGET...] [--seconds 600] [--keep] [--record]

``make fuzz`` runs them all. An input that breaks a target's promise is left in ``build/fuzz/finds``, and the program
ends with 1. ``--keep`` packs the smallest set of inputs with the same coverage into ``corpora/``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / name) for name in ("benchmarks", "tools", "tests/support")]

import build_cpp  # noqa: E402
import corpora  # noqa: E402
import fetch_clang_runtime  # noqa: E402
import fetch_cpp_libraries  # noqa: E402
from common import RESULTS, environment, write_results  # noqa: E402
from cpp_project import Libraries, find_clang  # noqa: E402

PYTHON = (
    *("manifest", "contract", "strict_json", "sidecar", "plan", "processor", "config", "index", "labels", "golden"),
    *("graph", "packets", "scenic", "both_languages"),
)
CPP = ("cpp_json", "cpp_contract", "cpp_manifest", "cpp_video", "cpp_packets")
BUILD = ROOT / "build/fuzz"
_LIMITS = ("-max_len=20000", "-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=512", "-print_final_stats=1")
_MOST_KEPT = 150


def main() -> None:
    """Fuzz, and say what was found."""
    arguments = _arguments()
    (BUILD / "finds").mkdir(parents=True, exist_ok=True)
    readers = build_readers(BUILD)
    failed = []
    for name in arguments.targets:
        told = fuzz(name, arguments.seconds, readers)
        print(f"{name}: {told['executions']} inputs in {told['seconds']} s, {told['finds']} finds", flush=True)
        if told["finds"]:
            failed.append(name)
        if arguments.keep:
            keep(name, readers)
        if arguments.record:
            _record(name, told)
    sys.exit(bool(failed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=[*PYTHON, *CPP])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def build_readers(folder: Path) -> Path:
    """Return the program with the C++ targets, compiled anew if a source has changed."""
    clang = find_clang()
    usr = fetch_cpp_libraries.fetch() / "usr"
    sources = [*(ROOT / "vivit_export/deploy/cpp/project/include").rglob("*.hpp"), HERE / "cpp/readers.cpp"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()
    place = folder / f"cpp-{digest[:12]}"
    if not (place / "readers").exists():
        runtime = fetch_clang_runtime.fetch(build_cpp.version_of(clang))
        build_cpp.build(clang, runtime, usr, Libraries(usr, usr).includes(), place)
    return place / "readers"


def fuzz(name: str, seconds: int, readers: Path, corpus: Path | None = None) -> dict[str, Any]:
    """Fuzz one target until it has a find or the time is over.

    Args:
        name: one of `PYTHON` or `CPP`.
        seconds: how long.
        readers: from `build_readers`.
        corpus: folder with inputs to start from, where new ones go; None: one that is kept in ``build``.

    Returns:
        The figures of libFuzzer, and how many finds there were (0 or 1).
    """
    corpus = corpus or BUILD / "corpus" / name
    corpora.unpack(name, corpus)
    for number, part in enumerate(PYTHON[:-1] if name == "everything" else ()):
        corpora.unpack(part, corpus, bytes([number]))
    before = len(list((BUILD / "finds").glob(f"{name}-*")))
    options = [*_LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={BUILD}/finds/{name}-", *_dictionary(name)]
    done = _run(name, readers, [str(corpus), *options])
    said = done.stderr
    if done.returncode:
        print(done.stdout[-3000:], said[-1500:], file=sys.stderr)
    coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said)
    units = re.search(r"stat::number_of_executed_units: (\d+)", said)
    took = re.search(r"Done \d+ runs in (\d+) second", said)
    finds = len(list((BUILD / "finds").glob(f"{name}-*"))) - before
    return {
        "seconds": int(took[1]) if took else None,
        "executions": int(units[1]) if units else None,
        "coverage": int(coverage[-1][0]) if coverage else 0,
        "features": int(coverage[-1][1]) if coverage else 0,
        "inputs": int(coverage[-1][2]) if coverage else 0,
        "finds": max(finds, int(done.returncode != 0)),
    }


def keep(name: str, readers: Path) -> None:
    """Pack the inputs of a target that cover everything, the smallest first."""
    corpus = BUILD / "corpus" / name
    if name in PYTHON:  # libFuzzer's own way starts processes of itself, which Atheris is not
        os.environ["VIVIT_FUZZ_READERS"] = str(readers)
        corpora.keep(name, covering(name, [path.read_bytes() for path in corpus.iterdir()])[:_MOST_KEPT])
        return
    with tempfile.TemporaryDirectory() as folder:
        _run(name, readers, ["-merge=1", *_LIMITS, folder, str(corpus)])
        found = sorted((path.read_bytes() for path in Path(folder).iterdir()), key=len)
    corpora.keep(name, found[:_MOST_KEPT])


def covering(name: str, found: Iterable[bytes]) -> list[bytes]:
    """Return inputs that together reach every line of the package that all reach, the smallest first."""
    import targets

    package = str(ROOT / "vivit_export")
    reached: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(package):
            return None
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    kept = []
    for data in sorted(found, key=lambda data: (len(data), data)):
        before = len(reached)
        sys.settrace(trace)
        try:
            targets.check(name, data)
        finally:
            sys.settrace(None)
        if len(reached) > before:
            kept.append(data)
    return kept


def _run(name: str, readers: Path, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer of a target in a room of its own."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="vivit-fuzz-", dir=memory if memory.is_dir() else None) as room:
        corpora.lay_out(Path(room))
        env = {**os.environ, "VIVIT_FUZZ_ROOM": room, "VIVIT_FUZZ_READERS": str(readers), "VIVIT_FUZZ_TARGET": name}
        program = [str(readers)] if name in CPP else [sys.executable, str(HERE / "python_fuzzer.py"), name]
        return subprocess.run(
            [*program, *options], env=env, capture_output=True, text=True, errors="replace", check=False
        )


def _dictionary(name: str) -> list[str]:
    """Words that the seeds have, as libFuzzer's dictionary."""
    words = set()
    for data in corpora.inputs(name).values():
        words |= set(re.findall(rb'"[A-Za-z0-9_./-]{2,40}"', data))
    if not words:
        return []
    path = BUILD / f"{name}.dict"
    path.write_text("".join(f'"\\"{word.decode()[1:-1]}\\""\n' for word in sorted(words)))
    return [f"-dict={path}"]


def _record(name: str, told: dict[str, Any]) -> None:
    """Add the figures of one target to the results, and keep those of all others."""
    folder = RESULTS / "reliability"
    path = folder / "fuzz.json"
    content = json.loads(path.read_text()) if path.exists() else {"targets": {}}
    content["targets"][name] = told
    content["environment"] = environment()
    write_results("fuzz", content, folder)


if __name__ == "__main__":
    shutil.rmtree(BUILD / "finds", ignore_errors=True)
    main()

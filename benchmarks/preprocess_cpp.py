"""Time the C++ ``Preprocessor`` against ``VivitImageProcessor`` on one clip of 32 frames, on two threads.

The two take turns, and must produce the same bits. Each builds its result in fresh memory; both start
from frames in memory. ``pixels`` is the whole pipeline, as in transformers; ``crops`` is the part that a
bundle with the default input needs. On a busy machine, read the ratio of the fastest rounds.
Run from the repository root: ``python benchmarks/preprocess_cpp.py`` (fetches what it compiles against).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers
from common import environment, write_results

ROOT = Path(__file__).parents[1]
SIZES = ((320, 240), (640, 360), (1920, 1080), (1080, 2340))
NUM_FRAMES = 32
THREADS = 2
ROUNDS = 15
Array = npt.NDArray[Any]


def main() -> None:
    """Print the table and write the JSON."""
    reference = transformers.VivitImageProcessor()
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        rows = [measure(program, reference, width, height) for width, height in SIZES]
    print(f"{'fastest of ' + str(ROUNDS):>17} {'transformers':>14} {'C++ pixels':>14} {'ratio':>7} {'C++ crops':>13}")
    for row in rows:
        figures = f"{row['transformers_min_ms']:>11.1f} ms {row['pixels_min_ms']:>11.2f} ms"
        print(f"{row['frames']:>17} {figures} {row['ratio_of_min']:>6.1f}x {row['crops_min_ms']:>10.2f} ms")
    write_results("preprocess_cpp", {"environment": environment(), "threads": THREADS, "results": rows})


def build(folder: Path) -> Path:
    """Compile the C++ half, as CMake's Release does."""
    fetch = [sys.executable, str(ROOT / "tools/fetch_cpp_libraries.py")]
    libraries = Path(subprocess.run(fetch, check=True, capture_output=True, text=True).stdout.split()[-1])
    program, source = folder / "preprocess_cpp", ROOT / "benchmarks/preprocess_cpp.cpp"
    includes = [f"-I{ROOT / 'vivit_export/deploy/cpp/project/include'}", "-isystem", str(libraries / "usr/include")]
    flags = ["-std=c++17", "-O3", "-DNDEBUG", "-ffp-contract=off", "-pthread", *includes]
    subprocess.run(["g++", *flags, str(source), "-o", str(program)], check=True)
    return program


def measure(program: Path, reference: Any, width: int, height: int) -> dict[str, Any]:
    """Check that both give the same bits, then time them in turn."""
    frames = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, height, width, 3), dtype=np.uint8)
    file, out = program.with_name("frames"), program.with_name("out")
    frames.tofile(file)
    command = [str(word) for word in (program, width, height, NUM_FRAMES, THREADS, file, out)]
    theirs, ours = [], []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            expected = reference(list(frames), return_tensors="np")["pixel_values"]
            theirs.append(time.perf_counter() - start)
            ours.append(ask(child))
        require_equal(np.fromfile(out, np.float32), expected, f"{width}x{height}")
    return summary(f"{NUM_FRAMES} x {width}x{height}", theirs, ours)


def ask(child: subprocess.Popen[str]) -> dict[str, float]:
    """Let the program run one round; seconds of its stages."""
    assert child.stdin is not None
    assert child.stdout is not None
    print(file=child.stdin, flush=True)
    answer: dict[str, float] = json.loads(child.stdout.readline())
    return answer


def require_equal(ours: Array, expected: Array, name: str) -> None:
    """Stop where the bits differ."""
    if not np.array_equal(ours.view(np.uint32), np.asarray(expected).reshape(-1).view(np.uint32)):
        raise SystemExit(f"{name}: the results differ; timing them would be pointless")


def summary(frames: str, theirs: list[float], ours: list[dict[str, float]]) -> dict[str, Any]:
    """Fastest and median times, and their ratios."""
    columns = {"transformers": theirs, **{name: [round_[name] for round_ in ours] for name in ("pixels", "crops")}}
    row: dict[str, Any] = {"frames": frames, "rounds": ROUNDS}
    for statistic, function in (("min", min), ("median", statistics.median)):
        values = {name: function(seconds) for name, seconds in columns.items()}
        row |= {f"{name}_{statistic}_ms": round(value * 1e3, 2) for name, value in values.items()}
        row[f"ratio_of_{statistic}"] = round(values["transformers"] / values["pixels"], 1)
    return row


if __name__ == "__main__":
    main()

"""Time `Preprocessor` against ``VivitImageProcessor`` on one clip of 32 frames.

The two take turns. Read the ratio of the fastest rounds: on a busy machine, the median also includes
waiting for a core, and ours uses two.
Run from the repository root: ``python benchmarks/preprocess.py``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import transformers

from vivit_export.contract import Clip, Preprocess
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.clips.pixels.processor_config import installed_resize_order

SIZES = ((320, 240), (1920, 1080))
NUM_FRAMES = 32
ROUNDS = 15
RESULTS = Path(__file__).parent / "results" / "preprocess.json"


def main() -> None:
    """Print the table and write the JSON."""
    reference = transformers.VivitImageProcessor()
    fields = Preprocess(shortest_edge=256, resize_order=installed_resize_order())
    ours = Preprocessor(Clip(NUM_FRAMES, 224, 224, (2, 16, 16)), fields)
    rows = [measure(ours, reference, width, height) for width, height in SIZES]
    print(
        f"{'fastest of ' + str(ROUNDS):>17} {'transformers':>14} {'vivit-export':>14} {'ratio':>7} {'of medians':>11}"
    )
    for row in rows:
        theirs, mine = row["transformers_min_ms"], row["vivit_export_min_ms"]
        ratios = f"{row['ratio_of_min']:>6.2f}x {row['ratio_of_median']:>10.2f}x"
        print(f"{row['frames']:>17} {theirs:>11.1f} ms {mine:>11.1f} ms {ratios}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"environment": environment(), "results": rows}, indent=2) + "\n")


def measure(ours: Preprocessor, reference: Any, width: int, height: int) -> dict[str, Any]:
    """Check that both give the same bits, then time them in turn."""
    shape = (NUM_FRAMES, height, width, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def run_reference() -> Any:
        return reference(list(frames), return_tensors="np")["pixel_values"]

    def run_ours() -> Any:
        return ours(frames)

    if not np.array_equal(run_reference(), run_ours()):
        raise SystemExit(f"{width}x{height}: the results differ; timing them would be pointless")
    pairs = [(seconds(run_reference), seconds(run_ours)) for _ in range(ROUNDS)]
    columns = {"transformers": [p[0] for p in pairs], "vivit_export": [p[1] for p in pairs]}
    row: dict[str, Any] = {"frames": f"{NUM_FRAMES} x {width}x{height}", "rounds": ROUNDS}
    for statistic, function in (("min", min), ("median", statistics.median)):
        theirs, mine = (function(values) for values in columns.values())
        row |= {f"{name}_{statistic}_ms": round(function(v) * 1e3, 2) for name, v in columns.items()}
        row[f"ratio_of_{statistic}"] = round(theirs / mine, 2)
    return row


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()

"""Read a long video with another library: the part of throughput.py that runs in the peers' Python.

    python throughput_peer.py torchcodec|decord VIDEO FRAMES

Takes that many frames, spread evenly, and prints their SHA-256, the CPU seconds that reading took, and how many frames
the video has.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any


def main(library: str, video: str, count: int) -> None:
    """Print a JSON object."""
    module: Any = importlib.import_module(f"{library}.decoders" if library == "torchcodec" else library)
    start = time.process_time()
    if library == "torchcodec":
        reader = module.VideoDecoder(video, dimension_order="NHWC", seek_mode="exact")
        total = int(reader.metadata.num_frames)
        frames = reader.get_frames_at(_spread(total, count)).data.numpy()
    else:
        reader = module.VideoReader(video)
        total = len(reader)
        frames = reader.get_batch(_spread(total, count)).asnumpy()
    spent = time.process_time() - start
    facts: dict[str, Any] = {"frames": total, "sha256": hashlib.sha256(frames.tobytes()).hexdigest()}
    facts["reading_cpu_seconds"] = round(spent, 3)
    facts["version"] = str(getattr(importlib.import_module(library), "__version__", ""))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps(facts | {"peak_bytes": int(peak.split()[1]) * 1024}))


def _spread(total: int, count: int) -> list[int]:
    return [i * total // count for i in range(count)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""One measurement of throughput.py, in a process of its own: prints a JSON object.

python throughput_worker.py '{"do": "clip", "video": "a.mp4", "sampling": "uniform", "decode": "auto"}'
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from common import peak_bytes

from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.runtime import Preprocessor, VideoFault, predict_videos, read_clip
from vivit_export.runtime.clips import processes
from vivit_export.runtime.clips.sampling import clip_indices
from vivit_export.runtime.clips.video.index import VideoIndex, read_index
from vivit_export.runtime.clips.video.picture import ToUprightRgb
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.clips.video.seek import seek_frames
from vivit_export.runtime.clips.video.stopping import ReadingPool
from vivit_export.runtime.clips.views import read_views_to
from vivit_export.runtime.session.session import Session

FRAMES, SIZE, LABELS = 32, 224, 8


def contract(mode: str = "crops", sampling: str = "uniform", frames: int = FRAMES) -> Contract:
    """What ViViT-B takes: 32 frames of 224x224, cropped from frames whose shorter edge is 256."""
    clip = Clip(frames, SIZE, SIZE, (2, 16, 16), sampling=sampling)  # type: ignore[arg-type] # checked there
    shapes = {"crops": (frames, SIZE, SIZE, 3), "pixels": (frames, 3, SIZE, SIZE)}
    source = Tensor("input", "uint8" if mode == "crops" else "float32", ("batch", *shapes[mode]))
    labels = tuple(f"label {number}" for number in range(LABELS))
    io = IO(mode, (source,), (Tensor("logits", "float32", ("batch", LABELS)),))  # type: ignore[arg-type]
    return Contract(clip, Preprocess(shortest_edge=256), io, labels)


class NoEngine:
    """A back end that takes no time."""

    name, details, batches = "none", "no engine", (1, 8)

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Return logits without looking at the clips."""
        return {"logits": np.zeros((len(batch), LABELS), np.float32)}

    def close(self) -> None:
        """Nothing is open."""


# --- what is measured --------------------------------------------------------------------------


def clip(video: str, sampling: str, decode: str, threads: int = 0) -> dict[str, Any]:
    """Read one clip."""
    start = time.process_time()
    frames = read_clip(video, contract(sampling=sampling), Reading(decode, threads))  # type: ignore[arg-type]
    spent = time.process_time() - start
    return {"sha256": hashlib.sha256(frames.tobytes()).hexdigest(), "reading_cpu_seconds": round(spent, 3)}


def tensors(videos: list[str], mode: str, readers: int, threads: int) -> dict[str, Any]:
    """Read clips to the model's input, each reader to memory that it uses again."""
    wanted = contract(mode)
    source = wanted.io.inputs[0]
    spare = [np.zeros((1, *map(int, source.shape[1:])), source.dtype) for _ in range(readers)]

    def read(video: str) -> None:
        rows = spare.pop()
        read_views_to(rows, Path(video), wanted, Reading(threads=threads))
        spare.append(rows)

    return in_threads(read, videos, readers)


def labels(videos: list[str], mode: str, readers: int | None, apart: bool | None = None) -> dict[str, Any]:
    """Predict with an engine that takes no time; read in processes or in threads, or in what is chosen."""
    if apart is not None:
        processes._WORTH_VIDEOS = 0 if apart else len(videos) + 1
    session = Session(contract(mode), NoEngine(), {})
    start = time.perf_counter()
    results = list(predict_videos(session, videos, readers=readers))
    assert not any(isinstance(result, VideoFault) for result in results)
    return rate(len(videos), start)


def decoder(videos: list[str], readers: int) -> dict[str, Any]:
    """Only decode what the same frames need, and drop it; the packets were read before."""
    _begin(set(videos))
    return in_threads(_decode, videos, readers)


def decoder_apart(videos: list[str], readers: int) -> dict[str, Any]:
    """The same in processes, which have been started."""
    with ProcessPoolExecutor(readers, get_context("spawn"), _begin, (set(videos),)) as pool:
        wait([pool.submit(time.sleep, 1.0) for _ in range(readers)])
        start = time.perf_counter()
        for _ in pool.map(_decode, videos):
            pass
        return rate(len(videos), start)


_INDEXES: dict[str, VideoIndex] = {}


def _begin(videos: set[str]) -> None:
    _INDEXES.update({video: read_index(Path(video)) for video in videos})


def _decode(video: str) -> None:
    for _ in _decoded(_INDEXES[video]):
        pass


def _decoded(index: VideoIndex) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode what the frames of a clip need, on one core."""
    return seek_frames(index, numbers_of(index), lambda: lambda frame: frame, 2 * index.pixels, 1)


def decoder_all(videos: list[str], readers: int) -> dict[str, Any]:
    """Decode every frame with PyAV, and drop it."""

    def decode(video: str) -> None:
        with av.open(video) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            for _ in container.decode(stream):
                pass

    return in_threads(decode, videos, readers)


def transformers(videos: list[str], rate_of_frames: int) -> dict[str, Any]:
    """Do what ``pipeline("video-classification")`` does before the model, which is a tiny one here."""
    import torch
    from transformers import (
        VideoClassificationPipeline,
        VivitConfig,
        VivitForVideoClassification,
        VivitImageProcessor,
    )

    torch.set_num_threads(os.cpu_count() or 1)
    config = VivitConfig(
        num_frames=FRAMES, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    pipeline: Any = VideoClassificationPipeline(
        model=VivitForVideoClassification(config), image_processor=VivitImageProcessor()
    )
    start = time.perf_counter()
    for video in videos:
        values = pipeline.preprocess(video, frame_sampling_rate=rate_of_frames)["pixel_values"]
        assert values.shape == (1, FRAMES, 3, SIZE, SIZE)
    return rate(len(videos), start)


def parts(videos: list[str]) -> dict[str, Any]:
    """Take apart the way from file to input on one core: CPU milliseconds for a clip."""
    preprocessor, spent = Preprocessor(contract().clip, contract().preprocess), dict[str, float]()
    crop, pixels = np.empty((SIZE, SIZE, 3), np.uint8), np.empty((3, SIZE, SIZE), np.float32)

    def timed(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start = time.thread_time()
        result = function(*arguments)
        spent[name] = spent.get(name, 0.0) + time.thread_time() - start
        return result

    for video in videos:
        index = timed("scan the packets", read_index, Path(video))
        frames = timed("decode", lambda i=index: [frame for _, frame in _decoded(i)])
        to_rgb = ToUprightRgb(index.path)
        for frame in frames:
            image = timed("convert to RGB", to_rgb, frame)
            timed("resize and crop", preprocessor.write, image, crop)
            timed("resize, crop and normalize", preprocessor.write, image, pixels)
    return {"cpu_ms": {name: round(1e3 * seconds / len(videos), 2) for name, seconds in spent.items()}}


def memory(videos: list[str], broken: str, clips: int, share: float, every: int) -> dict[str, Any]:
    """Predict many clips, of which a share is broken, and look at the resident memory now and then."""
    session = Session(contract(), NoEngine(), {})
    period = round(1 / share)
    good = cycle(videos)
    paths = [broken if number % period == period - 1 else next(good) for number in range(clips)]
    seen, faults = [], 0
    for number, result in enumerate(predict_videos(session, paths), 1):
        if isinstance(result, VideoFault):
            assert str(result.path) == broken and result.error.sentence.startswith(broken)
            faults += 1
        if number % every == 0:
            seen.append(_resident())
    assert faults == paths.count(broken)
    return {"clips": clips, "faults": faults, "every": every, "resident_bytes": seen}


# --- helpers -----------------------------------------------------------------------------------


def numbers_of(index: VideoIndex) -> list[int]:
    """Frames of the clip that is drawn from a video."""
    return sorted(set(clip_indices(index.num_frames, contract().clip).tolist()))


def in_threads(work: Callable[[str], None], videos: list[str], readers: int) -> dict[str, Any]:
    """Do something to each video, in threads."""
    start = time.perf_counter()
    with ReadingPool(readers) as pool:
        for done in [pool.submit(work, video) for video in videos]:
            done.result()
    return rate(len(videos), start)


def rate(clips: int, start: float) -> dict[str, Any]:
    """Clips per second since the start, without what came before it."""
    return {"clips": clips, "clips_per_second": round(clips / (time.perf_counter() - start), 3)}


def _resident() -> int:
    """Memory of this process and of those that read for it; what they share counts once (Linux)."""
    pids = ["self", *Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    lines = "".join(Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids).splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


_WORKS: dict[str, Callable[..., dict[str, Any]]] = {
    work.__name__: work
    for work in (clip, tensors, labels, decoder, decoder_apart, decoder_all, transformers, parts, memory)
}


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Do one measurement; ``repeat`` gives more clips than there are videos."""
    name, count = given.pop("do"), given.pop("count", None)
    if count is not None:
        given["videos"] = list(_repeated(given["videos"], count))
    return {**_WORKS[name](**given), "peak_bytes": peak_bytes()}


def _repeated(videos: list[str], count: int) -> Iterator[str]:
    return islice(cycle(videos), count)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

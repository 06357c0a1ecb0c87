"""Predict videos with an opened session: read ahead, fill batches across videos, average views.

An unusable video yields the reason in its place; the others continue.
"""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.choices import CpuPrecision, Decode
from vivit_export.contract import Contract, Sampling, Short
from vivit_export.errors import ClipError, UsageError, option
from vivit_export.files import as_path
from vivit_export.progress import Progress
from vivit_export.records import JsonObject
from vivit_export.runtime.clips.sampling import choose_sampling
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.stopping import ReadingPool
from vivit_export.runtime.clips.views import average_views, read_fitting_views, require_size
from vivit_export.runtime.clips.windows import Unit, WindowRule, read_windows
from vivit_export.runtime.labels import read_labels
from vivit_export.runtime.select import open_session
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.session.session import Session
from vivit_export.runtime.session.triton.address import is_address
from vivit_export.runtime.session.triton.videos import VideoModel, open_model

UInt8 = npt.NDArray[np.uint8]
_T = TypeVar("_T")

_SERVER_REQUESTS = 8  # in flight at once, so that a server can form batches while other videos are decoded


@dataclass(frozen=True, slots=True, eq=False)
class VideoPrediction:
    """The prediction for a video, or for one window of it.

    Attributes:
        path: path of the video.
        prediction: averaged over the views.
        span_seconds: (start, end) of the window, or None for the whole video.
    """

    path: Path
    prediction: Prediction
    span_seconds: tuple[float, float] | None = None

    @property
    def place(self) -> Path:
        """What the prediction is of; windows of one video share the object."""
        return self.path

    def to_json(self, k: int = 5) -> JsonObject:
        """Return JSON types: the video, its window if there is one, and the k most probable labels."""
        facts: JsonObject = {"video": str(self.path)}
        if self.span_seconds is not None:
            facts |= {"start_seconds": self.span_seconds[0], "end_seconds": self.span_seconds[1]}
        return facts | labelled(self.prediction, k)


def labelled(prediction: Prediction, k: int) -> JsonObject:
    """Return the k most probable labels as JSON; nothing for a bundle without logits."""
    if prediction.logits is None:
        return {}
    score = "value" if prediction.task == "regression" else "probability"
    return {"top": [{"label": label, score: found} for label, found in prediction.top(k)]}


@dataclass(frozen=True, slots=True)
class VideoFault:
    """A video that could not be used.

    Attributes:
        path: path of the video.
        error: why it could not be used.
    """

    path: Path
    error: ClipError


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """Clips that lead to one prediction: the views of a video, or one window."""

    path: Path
    clips: UInt8
    span_seconds: tuple[float, float] | None


def read_source(source: Path | str, progress: Progress) -> tuple[Bundle | str, Contract]:
    """Verify a bundle, or query a server for its model.

    Args:
        source: a bundle's folder, or an address (`vivit_export.runtime.session.triton.address`).
        progress: receives the stage.

    Returns:
        What `predict_bundle` takes, and its contract.

    Raises:
        BundleError: the bundle is damaged.
        EnvironmentFault: there is no such server or model.
    """
    if is_address(source):
        with progress.stage("ask the server"), open_model(str(source)) as model:
            return str(source), model.contract
    with progress.stage("verify the bundle"):
        bundle = read_bundle(source)
    return bundle, bundle.contract


def predict_bundle(
    bundle: Bundle | str,
    files: Sequence[Path],
    *,
    contract: Contract,
    windows: WindowRule | None = None,
    engine: str | None = None,
    device: str | None = None,
    cpu_precision: CpuPrecision | None = None,
    decode: Decode = "auto",
    readers: int | None = None,
    progress: Progress,
) -> Generator[VideoPrediction | VideoFault, None, None]:
    """Open a bundle as `open_session` does and predict videos as `predict_videos` does, counting them.

    A served model may also be one that takes videos (`vivit_export.runtime.session.triton.videos`).
    """
    is_served = isinstance(bundle, str) and not (engine or device or cpu_precision)
    opened = open_model(str(bundle)) if is_served else open_session(bundle, engine, device, cpu_precision)
    reading = Reading(decode, note=lambda path, why: progress.detail(f"{path} is decoded in full: {why}"))
    with opened as session:
        progress.note(f"runs on {session.details}")
        in_flight = _SERVER_REQUESTS if session.engine == "triton" else 0
        with progress.counting("predict", len(files), "videos") as advance:
            last: Path | None = None
            results = predict_videos(
                session,
                files,
                contract=contract,
                windows=windows,
                in_flight=in_flight,
                reading=reading,
                readers=readers,
            )
            for result in results:
                # Not by equality: a video that is named twice counts twice.
                if result.path is not last and isinstance(result, VideoPrediction):
                    last = result.path
                    advance(1)
                yield result


def adapt_contract(
    contract: Contract,
    *,
    labels: Path | None = None,
    sampling: Sampling | None = None,
    stride: int | None = None,
    short: Short | None = None,
    views: tuple[int, int] | None = None,
) -> Contract:
    """Return a contract with other labels (`read_labels`) and another sampling (`choose_sampling`).

    Raises:
        UsageError: the sampling options conflict, or the model has no logits to name.
        InputError: the labels are for another model.
    """
    names = contract.labels
    if labels is not None:
        if not names:
            raise UsageError(f"{option('labels')}: this bundle has no logits to name")
        names = read_labels(labels, len(names))
    clip = choose_sampling(contract.clip, sampling, stride, short, views)
    return dataclasses.replace(contract, clip=clip, labels=names)


def window_rule(
    window: tuple[float, Unit] | None, hop: tuple[float, Unit] | None, views: tuple[int, int] | None = None
) -> WindowRule | None:
    """Make a window rule from lengths with units; return None without a window.

    Raises:
        UsageError: they conflict.
    """
    if window is None:
        if hop is not None:
            raise UsageError(f"{option('hop')} is the step between windows; give {option('window')} too")
        return None
    if hop is not None and hop[1] != window[1]:
        raise UsageError(
            f"{option('window')} is in {window[1]} and {option('hop')} in {hop[1]}; count both in one unit"
        )
    if views is not None:
        raise UsageError(f"{option('views')} and {option('window')} exclude each other: a window is one clip")
    return WindowRule(window[0], None if hop is None else hop[0], window[1])


def describe_faults(faults: Sequence[VideoFault], num_videos: int) -> str:
    """Return the faults as the message of an error: one sentence for a single video, else a list."""
    if num_videos == 1:
        return faults[0].error.sentence
    lines = (f"  {fault.error.sentence}" for fault in faults)
    return "\n".join([f"{len(faults)} of {num_videos} videos could not be used:", *lines])


def predict_videos(
    session: Session | VideoModel,
    paths: str | Path | Iterable[str | Path],
    *,
    contract: Contract | None = None,
    windows: WindowRule | None = None,
    in_flight: int = 0,
    reading: Reading = AS_NEEDED,
    readers: int | None = None,
) -> Iterator[VideoPrediction | VideoFault]:
    """Predict videos in order, one result each, or one for each window.

    Memory: the views of at most 2 * ``readers`` videos and of one batch, and the few frames of as many decoders; with
    ``windows``, one batch of windows. With ``in_flight``, the requests on their way besides.

    Args:
        session: an opened bundle, or a served model that takes videos.
        paths: video files, or a single one.
        contract: may have a different sampling rule or labels than the bundle's; its shapes are the bundle's.
        windows: predict windows instead of whole videos, with the central one of the contract's ``views``.
        in_flight: for a session on a server, which forms batches itself: send each clip's views at once, and
            continue reading while this many requests are in flight. 0: fill batches here, and run one at a time.
        reading: how much of each video is decoded.
        readers: how many videos are read at once; None: one per core. Windows are read from one video at a time.

    Yields:
        A prediction, or the fault of a video that cannot be read or does not fit. A video that
        fails after some of its windows were predicted yields those predictions, then its fault.

    Raises:
        UsageError: views or windows that this bundle does not support; a sampling rule that differs from the server's;
            something that is not a path.
        EnvironmentFault: the engine failed.
    """
    contract = contract or session.contract
    given = paths if isinstance(paths, Iterable) and not isinstance(paths, (str, bytes, os.PathLike)) else [paths]
    files = [as_path(path, "paths") for path in given]
    if isinstance(session, VideoModel):
        if windows is not None:
            raise UsageError(
                "windows are cut on this machine, but this model takes whole videos; use the model that takes clips"
            )
        if reading.decode != "auto" or readers is not None:
            raise UsageError(
                f"{option('decode')} and {option('readers')} are for videos that are read on this machine; this model "
                "takes whole videos, and its server reads them"
            )
        session.require_own_sampling(contract)
        yield from _run_concurrently(lambda path: [_sent(session, contract, path)], iter(files), in_flight)
        return
    if windows is None:
        items = _read_all(files, contract, reading, readers or os.cpu_count() or 1)
    else:
        items = _read_windows(files, contract, windows, reading)
    if in_flight:
        yield from _run_concurrently(lambda item: list(_run(session, contract, [item])), items, in_flight)
        return
    largest = session.batches[1]
    waiting: list[_Item | VideoFault] = []
    num_clips = 0
    for item in items:
        waiting.append(item)
        num_clips += len(item.clips) if isinstance(item, _Item) else 0
        if num_clips >= largest or not num_clips:
            yield from _run(session, contract, waiting)
            waiting, num_clips = [], 0
    yield from _run(session, contract, waiting)


def _read_all(
    files: Sequence[Path], contract: Contract, reading: Reading, readers: int
) -> Iterator[_Item | VideoFault]:
    """Read the views of each video, as many at once as there are readers, and as many ahead."""
    # Several decoders with one thread each are faster than one with several, which wait for each other.
    at_once = max(1, min(readers, len(files)))
    reading = dataclasses.replace(reading, threads=max(1, (os.cpu_count() or 1) // at_once))
    with ReadingPool(at_once) as pool:
        ahead: deque[tuple[Path, Future[UInt8]]] = deque()
        rest = iter(files)
        while True:
            for path in rest:
                ahead.append((path, pool.submit(read_fitting_views, path, contract, reading)))
                if len(ahead) >= 2 * at_once:
                    break
            if not ahead:
                return
            path, views = ahead.popleft()
            try:
                yield _Item(path, views.result(), None)
            except ClipError as e:
                yield VideoFault(path, e)


def _read_windows(
    files: Sequence[Path], contract: Contract, rule: WindowRule, reading: Reading
) -> Iterator[_Item | VideoFault]:
    for path in files:
        try:
            windows = read_windows(path, contract, window=rule.length, hop=rule.hop, unit=rule.unit, reading=reading)
            for window in windows:
                require_size(window.frames[None], path, contract)
                yield _Item(path, window.frames[None], (window.start_seconds, window.end_seconds))
        except ClipError as e:
            yield VideoFault(path, e)


def _run_concurrently(
    run: Callable[[_T], list[VideoPrediction | VideoFault]], items: Iterator[_T], in_flight: int
) -> Iterator[VideoPrediction | VideoFault]:
    """Run each item as a separate request, several at once, and yield the results in order."""
    pool = ThreadPoolExecutor(max(1, in_flight))
    under_way: deque[Future[list[VideoPrediction | VideoFault]]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(run, item))
            while under_way and (len(under_way) > in_flight or under_way[0].done()):
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()
    finally:
        # Do not wait: the owner of the session decides whether to wait for requests in flight.
        pool.shutdown(wait=False, cancel_futures=True)


def _sent(model: VideoModel, contract: Contract, path: Path) -> VideoPrediction | VideoFault:
    try:
        return VideoPrediction(path, dataclasses.replace(model(path), labels=contract.labels))
    except ClipError as e:
        return VideoFault(path, e)


def _run(
    session: Session, contract: Contract, items: Sequence[_Item | VideoFault]
) -> Iterator[VideoPrediction | VideoFault]:
    """Run the waiting items as one batch, and yield their results in order."""
    batches = [item.clips for item in items if isinstance(item, _Item)]
    outputs = session.run(batches[0] if len(batches) == 1 else np.concatenate(batches)) if batches else {}
    start = 0
    for item in items:
        if isinstance(item, VideoFault):
            yield item
            continue
        end = start + len(item.clips)
        mean = {name: average_views(rows[start:end]) for name, rows in outputs.items()}
        start = end
        prediction = Prediction.from_outputs(mean, contract)
        yield VideoPrediction(item.path, prediction, item.span_seconds)

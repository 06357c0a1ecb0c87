"""Predict videos with an opened session: read ahead, fill batches across videos, average views.

An unusable video yields the reason in its place; the others continue.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vivit_export.arguments import instance, whole, whole_or_none
from vivit_export.arguments import paths as as_paths
from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.signatures.trust import Files
from vivit_export.bundle.signatures.verify import require_signature as require_signer
from vivit_export.bundle.signatures.verify import signature_text
from vivit_export.choices import CpuPrecision, Decode
from vivit_export.contract import Contract, Sampling, Short
from vivit_export.errors import ClipError, ClipErrors, UsageError, option
from vivit_export.printing import one_line
from vivit_export.progress import Progress
from vivit_export.records import JsonObject
from vivit_export.runtime.clips.ahead import num_readers
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor
from vivit_export.runtime.clips.processes import ReadViews, view_reader
from vivit_export.runtime.clips.sampling import choose_sampling
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading, told_by
from vivit_export.runtime.clips.views import Rows, ViewCropper, average_views, num_views, require_size
from vivit_export.runtime.clips.windows import Unit, WindowRule, read_windows
from vivit_export.runtime.labels import read_labels
from vivit_export.runtime.select import open_session
from vivit_export.runtime.session.backend import Float32
from vivit_export.runtime.session.overlap import Work
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.session.session import Session
from vivit_export.runtime.session.triton.address import is_address
from vivit_export.runtime.session.triton.client import TritonBackend
from vivit_export.runtime.session.triton.videos import VideoModel, open_model

UInt8 = npt.NDArray[np.uint8]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        span = "" if self.span_seconds is None else " {:.2f} s to {:.2f} s".format(*self.span_seconds)
        return f"<VideoPrediction: {one_line(self.path.name)}{span}, {self.prediction.told()}>"

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


@dataclass(frozen=True, slots=True)
class Item:
    """What leads to one prediction: a video, or one window of it."""

    path: Path
    span_seconds: tuple[float, float] | None = None


def read_source(
    source: Path | str, progress: Progress, require_signature: Files | None = None, identity: str | None = None
) -> tuple[Bundle | str, Contract]:
    """Verify a bundle, or query a server for its model.

    Args:
        source: a bundle's folder, or an address (`vivit_export.runtime.session.triton.address`).
        progress: receives the stage, and as a detail who signed the bundle.
        require_signature: see `open_session`.
        identity: see `open_session`.

    Returns:
        What `predict_bundle` takes, and its contract.

    Raises:
        BundleError: the bundle is damaged.
        SignatureError: it is not signed by whom it must be signed by.
        UsageError: a signature is required of a served model.
        EnvironmentFault: there is no such server or model.
    """
    if is_address(source):
        if require_signature is not None:
            raise UsageError(f"{option('require_signature')} is for a bundle on this machine; drop it for {source}")
        with progress.stage("ask the server"), open_model(str(source)) as model:
            return str(source), model.contract
    with progress.stage("verify the bundle"):
        bundle = read_bundle(source)
        signer = require_signer(bundle, require_signature, identity)
    progress.detail(f"signature: {f'by {signer.title}, verified' if signer else signature_text(bundle) or 'none'}")
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
    self_test: bool = True,
    progress: Progress,
) -> Generator[VideoPrediction | VideoFault, None, None]:
    """Open a bundle as `open_session` does and predict videos as `predict_videos` does, counting them.

    A served model may also be one that takes videos (`vivit_export.runtime.session.triton.videos`).
    """
    is_served = isinstance(bundle, str) and not (engine or device or cpu_precision)
    on = (engine, device, cpu_precision)
    opened = open_model(str(bundle)) if is_served else open_session(bundle, *on, self_test=self_test)
    reading = Reading(decode, note=told_by(progress))
    with opened as session:
        progress.note(f"runs on {session.details}")
        if isinstance(session, Session):
            progress.detail(f"self-test {session.self_test}")
        in_flight = TritonBackend.at_once if session.engine == "triton" else 0
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


def error_of(faults: Sequence[VideoFault], num_videos: int) -> ClipError:
    """Return the faults as one error: that of a single video, else a list."""
    if num_videos == 1:
        return faults[0].error
    title = f"{len(faults)} of {num_videos} videos could not be used:"
    return ClipErrors(title, [fault.error.sentence for fault in faults])


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

    Reading, preprocessing and the engine work at the same time, and each frame is preprocessed straight to its place
    in a batch. Memory: the batches that run at once (one, or two on a GPU, or ``in_flight``), as many others as hold
    the views of 2 * ``readers`` videos, and the few frames of each decoder; with ``windows`` also what
    `vivit_export.runtime.read_windows` holds. All of it is used again and again. Many videos are read in a process for
    each reader (`vivit_export.runtime.clips.processes`), which takes about 50 MB, of which libraries that they share
    are the half, and the views of one video.

    Args:
        session: an opened bundle, or a served model that takes videos.
        paths: video files, or a single one.
        contract: may have a different sampling rule or labels than the bundle's; its shapes are the bundle's.
        windows: predict windows instead of whole videos, with the central one of the contract's ``views``.
        in_flight: for a session on a server, which forms batches itself: send each clip's views at once, and
            continue reading while this many requests are in flight. 0: fill batches here.
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
    if not isinstance(session, VideoModel):
        session = instance("session", session, Session)
    contract = session.contract if contract is None else instance("contract", contract, Contract)
    windows = None if windows is None else instance("windows", windows, WindowRule)
    in_flight, readers = whole("in_flight", in_flight, 0), whole_or_none("readers", readers, 1)
    files = as_paths("paths", paths)
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
        readers = num_readers(readers, len(files))
    sizes = {"items": 1, "at_once": in_flight} if in_flight else {}
    with view_reader(contract, reading, readers or 1, len(files)) as read:
        works = works_of(files, contract, windows, reading, read)
        outcomes = session.run_overlapped(works, rows=rows_of_each(contract, windows), readers=readers, **sizes)
        with closing(outcomes):
            for item, outcome in outcomes:
                yield result_of(item, outcome, contract)


def works_of(
    files: Sequence[Path], contract: Contract, windows: WindowRule | None, reading: Reading, read: ReadViews
) -> Iterator[Work[Item]]:
    """Return what leads to the predictions of videos, in order: each writes its rows of a batch.

    Args:
        files: videos.
        contract: says which frames and crops.
        windows: read windows, one after the other, here.
        reading: how much of each video is decoded, for windows.
        read: reads the views of a video.
    """
    return _windows(files, contract, windows, reading) if windows else _videos(files, contract, read)


def rows_of_each(contract: Contract, windows: WindowRule | None) -> int:
    """Return how many rows of a batch lead to one prediction: one for each view, of which a window has one."""
    return 1 if windows else num_views(contract)


def _videos(files: Sequence[Path], contract: Contract, read: ReadViews) -> Iterator[Work[Item]]:
    """Read the views of each video, in threads."""
    ViewCropper(contract)  # views that are impossible are no fault of a video
    for path in files:
        yield Work(Item(path), partial(read, path))


def _windows(files: Sequence[Path], contract: Contract, rule: WindowRule, reading: Reading) -> Iterator[Work[Item]]:
    """Read windows one after the other, here; one that cannot be read is a fault in its place."""
    preprocessor = Preprocessor(contract.clip, contract.preprocess)

    def copy(window: UInt8, rows: Rows) -> None:
        if rows.dtype == np.uint8:
            rows[0] = window
        else:
            preprocessor.normalize(window, rows[0])

    def fail(error: ClipError, _rows: Rows) -> None:
        raise error

    for path in files:
        try:
            windows = read_windows(path, contract, window=rule.length, hop=rule.hop, unit=rule.unit, reading=reading)
            for window in windows:
                require_size(window.frames[None], path, contract)
                span = (window.start_seconds, window.end_seconds)
                yield Work(Item(path, span), partial(copy, window.frames))
        except ClipError as e:
            yield Work(Item(path), partial(fail, e))


def result_of(item: Item, outcome: dict[str, Float32] | ClipError, contract: Contract) -> VideoPrediction | VideoFault:
    """Return the prediction that an item's rows of the outputs give, averaged, or its fault."""
    if isinstance(outcome, ClipError):
        return VideoFault(item.path, outcome)
    mean = {name: average_views(rows) for name, rows in outcome.items()}
    return VideoPrediction(item.path, Prediction.from_outputs(mean, contract), item.span_seconds)


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

"""Predict live video window by window, as it comes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, get_args

import numpy as np

from vivit_export.arguments import instance
from vivit_export.contract import Contract
from vivit_export.errors import UsageError, option
from vivit_export.records import JsonObject
from vivit_export.runtime.clips.live.address import LiveAddress, OnLate, live_address
from vivit_export.runtime.clips.live.reader import LiveReader, LiveRule, TimedFrames
from vivit_export.runtime.clips.windows import Unit, WindowRule
from vivit_export.runtime.predict import labelled
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.session.session import Session
from vivit_export.runtime.session.triton.videos import VideoModel

TIMEOUT_SECONDS, RECONNECT_SECONDS = 10.0, 60.0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StreamPrediction:
    """The prediction for one window of live video.

    Attributes:
        source: where it comes from, without a password.
        prediction: the window's.
        span_seconds: (start, end) of the window, from the first frame of the stream.
        latency_seconds: from when the last frame of the window arrived to when the prediction was there.
        dropped: windows between the previous prediction and this one that were dropped because they were late.
        connection: number of the connection that the window came over, from 0.
        frames: number of the window's first frame and that after its last one, from the first of the connection.
    """

    source: str
    prediction: Prediction
    span_seconds: tuple[float, float]
    latency_seconds: float
    dropped: int = 0
    connection: int = 0
    frames: tuple[int, int] = (0, 0)

    def __repr__(self) -> str:
        start, end = self.span_seconds
        late = f"{1e3 * self.latency_seconds:.0f} ms after its last frame"
        return f"<StreamPrediction: {start:.2f} s to {end:.2f} s, {self.prediction.told(1)}, {late}>"

    @property
    def place(self) -> str:
        """What the prediction is of."""
        return self.source

    def to_json(self, k: int = 5) -> JsonObject:
        """Return JSON types: what `VideoPrediction.to_json` has, and the latency, what was dropped, the connection."""
        facts: JsonObject = {
            "video": self.source,
            "start_seconds": self.span_seconds[0],
            "end_seconds": self.span_seconds[1],
            "latency_seconds": round(self.latency_seconds, 6),
            "dropped": self.dropped,
            "connection": self.connection,
        }
        return facts | labelled(self.prediction, k)


def stream(
    session: Session | VideoModel,
    source: str | os.PathLike[str] | TimedFrames,
    *,
    window: float,
    hop: float | None = None,
    unit: Unit = "seconds",
    contract: Contract | None = None,
    on_late: OnLate | None = None,
    timeout: float = TIMEOUT_SECONDS,
    reconnect: float = RECONNECT_SECONDS,
    note: Callable[[str], None] | None = None,
) -> Generator[StreamPrediction, None, None]:
    """Predict sliding windows of live video; the windows of a video that ends are those of `read_windows`, bit for bit.

    Memory: one crop for each frame of the last ``window + hop``, four windows that wait, and the decoder's few frames.

    Args:
        session: an opened bundle, or a server's model that takes clips; one that takes videos is refused.
        source: ``rtsp://``, ``rtsps://``, ``http://``, ``https://``, ``udp://`` or ``tcp://`` and the rest of an
            address, ``/dev/videoN``, ``-`` for standard input, or an iterable of pairs (time in seconds, frame), where
            times do not fall and frames are uint8 (h, w, 3) in RGB, all of one size. Iterables are read in a thread.
        window: length of a window, see `WindowRule` for its limits.
        hop: from the beginning of one window to the next; None: the window's length.
        unit: unit of both.
        contract: may have a different sampling rule or labels than the bundle's; its shapes are the bundle's.
        on_late: when the engine is slower than the stream, ``drop`` the oldest of more than four waiting windows, or
            let the source ``wait``. None: ``drop`` for what is sent in real time (RTSP, UDP, devices), else ``wait``.
        timeout: longest time without data, in seconds.
        reconnect: how long to try to reach a lost server or camera again, in seconds; 0: the first end is the end. See
            `vivit_export.runtime.clips.live.reader`.
        note: takes sentences about what was lost and found again.

    Returns:
        A generator; windows are read from its first step on, and until it is closed.

    Raises:
        ClipError: the source cannot be read, is lost for good, or sends what cannot be used; while iterating.
        UsageError: an option is out of range, or the source is not an address; at once.
        EnvironmentFault: the engine failed; while iterating.
    """
    if isinstance(session, VideoModel):
        raise UsageError(
            "windows are cut on this machine, but this model takes whole videos; use the model that takes clips"
        )
    session = instance("session", session, Session)
    contract = session.contract if contract is None else instance("contract", contract, Contract)
    found, name = _source(source)
    late = on_late or (found.on_late if isinstance(found, LiveAddress) else "wait")
    if late not in get_args(OnLate):
        raise UsageError(f"{option('on_late', repr(late))} is not one of {', '.join(get_args(OnLate))}")
    _require_seconds("timeout", timeout, at_least=0.1)
    _require_seconds("reconnect", reconnect, at_least=0)
    rule = LiveRule(WindowRule(window, hop, unit), late, timeout, reconnect)
    reader = LiveReader(found, name, contract, rule, note or _ignore)
    return _predict(session, contract, reader, name)


def _predict(
    session: Session, contract: Contract, reader: LiveReader, name: str
) -> Generator[StreamPrediction, None, None]:
    with reader:
        for windows, dropped in reader.batches(session.batches[1]):
            outputs = session.run(np.stack([window.frames for window in windows]))
            done = time.monotonic()
            for row, window in enumerate(windows):
                yield StreamPrediction(
                    name,
                    Prediction.from_outputs({key: rows[row] for key, rows in outputs.items()}, contract),
                    (window.start_seconds, window.end_seconds),
                    done - window.arrived,
                    0 if row else dropped,
                    window.connection,
                    (window.first_frame, window.end_frame),
                )


def _source(source: Any) -> tuple[LiveAddress | TimedFrames, str]:
    if isinstance(source, (str, os.PathLike)):
        address = live_address(os.fsdecode(source))
        return address, address.name
    if not isinstance(source, Iterable) or isinstance(source, np.ndarray):
        raise UsageError(
            f"{option('source')} must be an address or an iterable of pairs (time, frame), got {type(source).__name__}"
        )
    return source, "the stream"


def _require_seconds(name: str, value: float, at_least: float) -> None:
    if not (isinstance(value, Real) and at_least <= value < math.inf):
        shown = f"{value:g}" if isinstance(value, Real) else repr(value)
        raise UsageError(f"{option(name, shown)} must be a number of seconds, {at_least:g} or more")


def _ignore(_sentence: str) -> None:
    """Receive a remark that nobody asked for."""

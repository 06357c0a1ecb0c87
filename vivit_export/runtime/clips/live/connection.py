"""One connection to live video: its frames, upright, each with its time and with the moment when it arrived.

Whatever is wrong ends the connection with a `ClipError`; `vivit_export.runtime.clips.live.reader` decides whether to
connect again. Damaged frames of a server or camera, which cannot be sent again, are left out and counted instead.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EIO
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from vivit_export.errors import ClipError, option
from vivit_export.runtime.clips.live.address import LiveAddress
from vivit_export.runtime.clips.live.hls import PartFetcher
from vivit_export.runtime.clips.live.standard_input import StandardInput
from vivit_export.runtime.clips.live.trust import authorities, certificate_problem, distrusted
from vivit_export.runtime.clips.video.clock import STORES_TIMES_OF_DECODING, Clock
from vivit_export.runtime.clips.video.container import (
    FORMATS,
    best_video,
    ended,
    pixel_limits,
    require_pixels,
    require_pixels_despite,
)
from vivit_export.runtime.clips.video.index import BEGINS_ANYWHERE
from vivit_export.runtime.clips.video.picture import ToUprightRgb

UInt8 = npt.NDArray[np.uint8]

JUMP_SECONDS = 10.0
"""A live clock that goes ahead by more between two frames is a new clock."""
_PICTURE_TIMEOUTS = 3  # key frames may be rarer than data by so much
_MOST_PENDING = 512  # packets whose frame has not appeared; decoders hold back a few dozen at most


@dataclass(frozen=True, slots=True, eq=False)
class LiveFrame:
    """A frame.

    Attributes:
        seconds: when it is shown, from the first frame of the connection.
        image: uint8 (h, w, 3), upright RGB.
        arrived: when its data did, by `time.monotonic`.
    """

    seconds: float
    image: UInt8
    arrived: float


class Connection:
    """An open connection.

    Attributes:
        damaged: frames left out so far because their data were damaged.
        end_seconds: when the last frame so far ends, from the first.
    """

    def __init__(self, address: LiveAddress, container: InputContainer, video: av.VideoStream, timeout: float) -> None:
        self.damaged, self.end_seconds = 0, 0.0
        self._address, self._container, self._video = address, container, video
        self._patience = _PICTURE_TIMEOUTS * timeout
        self._rate = float(video.average_rate or video.guessed_rate or 25)
        self._clock = Clock(address.name, container.format.name, float(video.time_base or 0), 1 / self._rate)
        self._when_decoded = container.format.name in STORES_TIMES_OF_DECODING
        self._pending: dict[int, tuple[float | None, float]] = {}  # start of a packet by its time, and when it arrived

    def frames(self, alive: Callable[[], None]) -> Iterator[LiveFrame]:
        """Read and decode until it ends.

        Args:
            alive: called for each packet; what it raises ends the reading.

        Raises:
            ClipError: it breaks, or sends what cannot be used.
        """
        to_rgb = ToUprightRgb(self._address.name)
        times = _FrameTimes(self._address, self._rate)
        for frame, arrived in self._sound_frames(alive):
            start, came = self._start_of(frame, arrived)
            seconds = times.place(start)
            self.end_seconds = times.end_seconds(None if self._when_decoded else self._clock.end)
            with self._broken():
                image = to_rgb(frame)
            yield LiveFrame(seconds, image, came)

    def _sound_frames(self, alive: Callable[[], None]) -> Iterator[tuple[av.VideoFrame, float]]:
        """Decode; yield frames that are not damaged, and when the last packet for each arrived."""
        seen = time.monotonic()
        try:
            for packet, arrived in self._packets(alive):
                for frame in self._decoded(packet):
                    if not self._is_damaged(frame.is_corrupt):
                        yield frame, arrived
                    seen = time.monotonic()  # whoever takes the frames may take their time
                if arrived - seen > self._patience:
                    raise ClipError(
                        f"{self._address.name} sends data but no picture for {self._patience:g} s: no key frame came, "
                        "or all of it is damaged; let its encoder send key frames more often"
                    )
        except ClipError:
            for frame in self._held_back():
                if not frame.is_corrupt:
                    yield frame, seen
            raise

    def _held_back(self) -> list[av.VideoFrame]:
        """Return the frames that the decoder keeps to put them in order, when no more data come."""
        try:
            return self._video.codec_context.decode(None)
        except av.error.FFmpegError:  # it has been emptied before
            return []

    def _start_of(self, frame: av.VideoFrame, now: float) -> tuple[float | None, float]:
        """Return when a frame is shown by its packet, or by the one that brings it out, and when that arrived."""
        time = frame.dts if self._when_decoded else frame.pts
        return (None, now) if time is None else self._pending.pop(time, (None, now))

    def _packets(self, alive: Callable[[], None]) -> Iterator[tuple[av.Packet[av.VideoStream], float]]:
        """Read the packets that are decoded, and when each arrived; the last one is empty, and flushes."""
        may_begin = self._video.codec_context.name in BEGINS_ANYWHERE
        with ended(self._container.demux(self._video)) as packets:
            while True:
                with self._broken():
                    packet = next(packets, None)
                if packet is None:
                    return
                arrived = time.monotonic()
                alive()
                may_begin = may_begin or packet.is_keyframe or not packet.size
                if packet.size and packet.is_corrupt and self._container.format.name != "mpegts":
                    self._is_damaged(True)
                if packet.size and not packet.is_discard:
                    self._note(packet, arrived)
                if may_begin:
                    yield packet, arrived

    def _note(self, packet: av.Packet[av.VideoStream], arrived: float) -> None:
        """Keep when the frame of a packet is shown, and when the packet arrived, until the frame is there."""
        start, key = self._place(packet), packet.dts if self._when_decoded else packet.pts
        if key is not None:
            self._pending[key] = start, arrived
            if len(self._pending) > _MOST_PENDING:
                del self._pending[next(iter(self._pending))]

    def _place(self, packet: av.Packet[av.VideoStream]) -> float | None:
        try:
            return self._clock.place(packet)
        except ClipError as e:
            raise ClipError(
                f"the clock of {self._address.name} jumps back, {self.end_seconds:.2f} s after the first frame; let "
                "its encoder keep one clock"
            ) from e

    def _decoded(self, packet: av.Packet[av.VideoStream]) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.error.FFmpegError as e:
            require_pixels_despite(e, self._video, self._address.name)
            if not self._address.is_lasting:
                raise self._fault(e) from e
            self.damaged += 1
            return []

    def _is_damaged(self, is_corrupt: bool) -> bool:
        """Count a damaged frame of a source that cannot send it again; any other is refused for it."""
        if is_corrupt and not self._address.is_lasting:
            raise ClipError(
                f"{self._address.name} is damaged or cut short: the decoder reports an error at "
                f"{self.end_seconds:.2f} s; copy or encode it again"
            )
        self.damaged += is_corrupt
        return is_corrupt

    @contextmanager
    def _broken(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as e:
            raise self._fault(e) from e

    def _fault(self, error: av.error.FFmpegError) -> ClipError:
        name = self._address.name
        if isinstance(error, av.error.ExitError):
            return ClipError(
                f"{name} sent nothing for {self._patience / _PICTURE_TIMEOUTS:g} s; check that it is still sending, or "
                f"give it longer with {option('timeout')}"
            )
        return ClipError(f"{name} broke off ({error.strerror}); check that it is still sending, and sends whole videos")


class _FrameTimes:
    """Places frames in time as `timeline_of` does for files.

    Frames without a time follow each other evenly; what comes over RTSP gets its times after some frames.
    """

    def __init__(self, address: LiveAddress, rate: float) -> None:
        self._address, self._rate = address, rate
        self._first: float | None = None  # time of the first frame, once one is known
        self._count, self._last = 0, 0.0

    def place(self, start: float | None) -> float:
        """Return when the next frame is shown, from the first.

        Raises:
            ClipError: time jumps.
        """
        seconds = self._count / self._rate if self._first is None else self._last + 1 / self._rate
        if start is not None:
            if self._first is None:
                self._first = start - seconds
            seconds = start - self._first
        self._require_steady(seconds)
        self._count, self._last = self._count + 1, seconds
        return seconds

    def end_seconds(self, end: float | None) -> float:
        """Return when the last frame ends, from the first, if packets are known to end at ``end``."""
        if self._first is None or end is None:
            return self._last + 1 / self._rate
        return max(end - self._first, self._last + 0.5 / self._rate)

    def _require_steady(self, seconds: float) -> None:
        step = seconds - self._last
        if step < 0 or (step > JUMP_SECONDS and self._address.is_lasting):
            way = "back" if step < 0 else "ahead"
            raise ClipError(
                f"the clock of {self._address.name} jumps {way} by {abs(step):.2f} s, {self._last:.2f} s after the "
                "first frame; let its encoder keep one clock"
            )


@contextmanager
def connect(address: LiveAddress, timeout: float, stop: threading.Event) -> Iterator[Connection]:
    """Open a connection.

    Args:
        address: what to open.
        timeout: longest time without data, in seconds.
        stop: ends the waiting for standard input.

    Raises:
        ClipError: nothing answers, or what comes is not a video.
    """
    given = StandardInput(stop, timeout) if address.kind == "standard input" else None
    if given is not None and os.isatty(0):
        raise ClipError("standard input is a terminal; pipe a video into it")
    is_device = address.kind == "device"
    if is_device:
        _require_device(Path(address.text))
    options = {} if is_device else address.options(FORMATS)
    if address.may_use_tls:
        options |= {"tls_verify": "1", "ca_file": authorities()}
    try:
        container = av.open(
            given or address.text,
            "r",
            format="v4l2" if is_device else None,
            options=pixel_limits(),
            container_options=options,
            timeout=(timeout, timeout),
            io_open=PartFetcher(address.name, address.schemes, timeout) if address.is_playlist else None,
        )
    except av.error.FFmpegError as e:
        if given is not None and not given.received:
            raise ClipError("standard input is empty; pipe a video into it") from e
        raise _refusal(address, timeout, e) from e
    with container:
        video = best_video(container, address.name)
        require_pixels(video, address.name, may_lack_size=True)  # it may have been joined long before a key frame
        video.codec_context.options = pixel_limits()  # a later frame may be larger
        # A thread for each frame would hold back as many frames as there are threads.
        video.thread_type, video.thread_count = "SLICE", 0
        yield Connection(address, container, video, timeout)


def _require_device(path: Path) -> None:
    if not path.exists():
        others = ", ".join(sorted(map(str, path.parent.glob("video*")))) or "none"
        raise ClipError(f"there is no device {path}; connect the camera, or choose another (found: {others})")
    if not path.is_char_device():
        raise ClipError(f"{path} is not a device; give a camera, or the name of a file")


def _refusal(address: LiveAddress, timeout: float, error: av.error.FFmpegError) -> ClipError:
    if isinstance(error, av.error.ExitError):
        return ClipError(
            f"{address.name} sent no video within {timeout:g} s; check that it is sending, or give it longer with "
            f"{option('timeout')}"
        )
    if isinstance(error, (av.error.InvalidDataError, av.error.ArgumentError, av.error.EOFError)):
        return ClipError(
            f"{address.name} sends no video of a kind that is read here ({error.strerror}); send MPEG-TS, Matroska, or "
            "MP4 with its index first"
        )
    problem = certificate_problem(address.text, timeout)
    if problem is not None:
        return distrusted(address.name, problem)
    reason = "no such host, or it hung up" if error.errno == EIO else error.strerror
    return ClipError(f"{address.name} cannot be opened ({reason}); check the name, and that something sends there")

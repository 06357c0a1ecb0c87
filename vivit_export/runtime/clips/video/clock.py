"""When the frames of a video are shown, by the times of its packets.

Where recordings were joined byte by byte, which transport and program streams allow, the times of each start over: they
are shifted to where the one before it ends. AVI stores only when packets are decoded; FFmpeg guesses the rest, wrongly
around gaps.
"""

from __future__ import annotations

from typing import Any

import av

from vivit_export.errors import ClipError

_MAY_BE_JOINED = ("mpegts", "mpeg")  # byte by byte; they store times of decoding, too
_HAS_ONE_TIMELINE = ("mov", "avi")  # a table for the whole file
STORES_TIMES_OF_DECODING = ("avi",)  # and no others


def several_recordings(name: object) -> ClipError:
    """Refuse a video that was joined where its container does not allow it."""
    return ClipError(
        f"{name} is several recordings in one file, of which players show only the first; join them with a program for "
        "videos"
    )


class Clock:
    """Puts the times of a stream on one line, even if recordings were joined and each starts over.

    Args:
        name: what messages call the video.
        kind: FFmpeg's name of its container.
        tick_seconds: unit of its packets' times.
        frame_seconds: how long a frame is shown that does not say it.

    Attributes:
        end: when the last frame so far ends, in seconds.
    """

    def __init__(self, name: object, kind: str, tick_seconds: float, frame_seconds: float) -> None:
        self.end = 0.0
        self._name, self._tick, self._frame_seconds = name, tick_seconds, frame_seconds
        self._may_be_joined = kind in _MAY_BE_JOINED
        self._is_one_line = kind.startswith(_HAS_ONE_TIMELINE)
        self._when_decoded = kind in STORES_TIMES_OF_DECODING
        self._placed_one = False
        self._shift = 0.0
        self._latest: int | None = None

    def place(self, packet: av.Packet[Any]) -> float | None:
        """Return when a packet's frame is first shown, in seconds, or None; or is decoded, if no more is stored.

        Raises:
            ClipError: recordings were joined that cannot be.
        """
        time = self._time_of(packet)
        if time is None:
            return None
        duration = packet.duration or 0
        start, end = time * self._tick, (time + duration) * self._tick
        if self._begins_anew(packet):
            if not self._may_be_joined:
                raise several_recordings(self._name)
            self._shift = self.end - start
        self.end = max(self.end, end + self._shift, start + self._shift + (0 if duration else self._frame_seconds))
        return start + self._shift

    def _time_of(self, packet: av.Packet[Any]) -> float | None:
        """Return when the container says that a packet's frame is shown, or is decoded, in ticks."""
        if not self._when_decoded:
            return packet.pts
        if packet.dts is None or packet.pts is None or self._placed_one:
            return packet.dts
        # Before the first packet, FFmpeg counts no empty ones, which stand for frames that were not recorded.
        self._placed_one = True
        return max(packet.dts, packet.pts - self._frame_seconds / self._tick)

    def _begins_anew(self, packet: av.Packet[Any]) -> bool:
        """Whether time falls: that of decoding where it is stored, else that of a key frame below an earlier one's."""
        time = packet.dts if self._may_be_joined else packet.pts
        if self._is_one_line or time is None:
            return False
        anew = self._latest is not None and time < self._latest and (self._may_be_joined or packet.is_keyframe)
        self._latest = time if anew or self._latest is None else max(self._latest, time)
        return anew

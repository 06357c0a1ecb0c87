"""What the header of a video says, without decoding a frame."""

from __future__ import annotations

from pathlib import Path

from vivit_export.bundle.clip_view import VideoFacts
from vivit_export.errors import ClipError
from vivit_export.runtime.clips.video.container import as_clip_error, open_video

_MICROSECONDS = 1e6  # in which FFmpeg gives the duration of a container


def video_facts(path: Path) -> VideoFacts | None:
    """Read the header of a video; None if it has none that can be read."""
    try:
        with as_clip_error(path), open_video(path) as (container, video):
            codec, rate, duration = video.codec_context, video.average_rate, container.duration
            return VideoFacts(
                codec.width,
                codec.height,
                float(rate) if rate else None,
                duration / _MICROSECONDS if duration and duration > 0 else None,
                codec.name,
            )
    except ClipError:
        return None

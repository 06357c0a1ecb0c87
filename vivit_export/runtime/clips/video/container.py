"""Open a video file and decode its packets; see `vivit_export.runtime.clips.video.frames` for reading frames.

Only a file's own bytes are read. FFmpeg is restricted to containers that hold their data and to the protocol
``file``, so that no playlist, manifest or concatenation script, whatever it is called, can name another file or a host.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar, cast

import av
from av.container import InputContainer
from av.stream import Disposition

from vivit_export.errors import ClipError
from vivit_export.limits import ALIGNMENT_PIXELS, MOST_HOLE_BYTES, PIXELS_VARIABLE, most_pixels
from vivit_export.packages import LOWEST_PYAV, require_version
from vivit_export.runtime.clips.video.stopping import stop_if_dropped

require_version("PyAV", av.__version__, LOWEST_PYAV, "an older one gives other colors or crashes")

# FFmpeg's names of the containers and bare streams that hold all their data. Sound is among them for the sake of the
# sentence that says so. The list is repeated in detail/libav/container.hpp of the C++ library; a test compares them.
FORMATS = (
    *("matroska", "mov", "avi", "mpegts", "mpeg", "flv", "live_flv", "asf", "asf_o", "ogg", "nut", "mxf", "gxf", "rm"),
    *("wtv", "dv", "ivf", "nuv", "nsv", "pva", "pmp", "ty", "dhav", "ifv", "lvf", "yuv4mpegpipe", "gif", "apng"),
    *("h261", "h263", "h264", "hevc", "vvc", "evc", "av1", "obu", "mpegvideo", "m4v", "vc1", "dirac", "dnxhd", "apv"),
    *("mjpeg", "mjpeg_2000", "cavsvideo", "avs2", "avs3"),
    *("mp3", "wav", "w64", "flac", "aac", "ac3", "eac3", "aiff", "caf", "ape", "wv", "tta", "amr", "au"),
)
_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}

# One decoder. With a thread for each frame, about one reading in fifty shows pictures of another place in the video.
_ONE_FRAME_AT_A_TIME = ("theora", "vp3", "vp4")
_SMALL_FRAME = 640 * 360  # pixels; repeated in detail/libav/decoder.hpp of the C++ library

T = TypeVar("T")

_HEAD_BYTES = 512
_MOST_HOLES = 1000
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a Path has made one slash of two
_PLAYLISTS = ("#extm3u", "ffconcat", "[playlist]", "<mpd", "<smil", "<asx", "<smoothstreamingmedia", "<playlist", "v=0")
_KINDS = {
    stat.S_IFDIR: "a folder; give one video file",
    stat.S_IFIFO: "a pipe, not a file; save the video to a file first",
    stat.S_IFSOCK: "a socket, not a file; save the video to a file first",
    stat.S_IFCHR: "a device, not a file; save the video to a file first",
    stat.S_IFBLK: "a device, not a file; save the video to a file first",
}


def require_file(path: Path, wanted: str = "a video file") -> None:
    """Refuse a path that is not a file with data, without ever waiting for a pipe.

    Args:
        path: as the user gave it.
        wanted: what would do instead of a path that does not exist.

    Raises:
        ClipError: it does not exist, is not a regular file, cannot be read, is empty, or begins as text does.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ClipError(f"{path} is {_KINDS[stat.S_IFMT(status.st_mode)]}")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            hole = _largest_hole(file.fileno(), status.st_size)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise ClipError(_why_missing(path, wanted)) from e
    except OSError as e:
        raise ClipError(f"{path} cannot be read: {e.strerror}; give a video file that you may read") from e
    if not head:
        raise ClipError(f"{path} is empty; give a video file")
    if hole > MOST_HOLE_BYTES:
        raise ClipError(
            f"{path} has a hole of {hole} bytes, as a download has that is not finished; get all of it, or copy it "
            "again"
        )
    text = _text(head)
    if text is not None:
        raise ClipError(f"{path} is {_kind_of_text(text)}")


def _largest_hole(descriptor: int, size: int) -> int:
    """Return the length of the largest part that was never written, where the file system can tell; else 0.

    Of a file with very many holes, only the first are looked at.
    """
    largest = at = 0
    try:
        for _ in range(_MOST_HOLES if size > MOST_HOLE_BYTES else 0):
            hole = os.lseek(descriptor, at, os.SEEK_HOLE)
            if hole >= size:
                break
            at = _next_data(descriptor, hole, size)
            largest = max(largest, at - hole)
            if at == size:
                break
    except OSError:
        return 0
    return largest


def _next_data(descriptor: int, hole: int, size: int) -> int:
    try:
        return os.lseek(descriptor, hole, os.SEEK_DATA)
    except OSError as e:
        if e.errno != errno.ENXIO:
            raise
        return size  # there are no data any more


def _why_missing(path: Path, wanted: str) -> str:
    if str(path) == "-":
        return "standard input cannot be searched as a video must be; save the video to a file first"
    if _ADDRESS.match(str(path)):
        return f"{path} is an address, and only files are read; download the video first"
    return f"{path} does not exist; give {wanted}"


def _text(head: bytes) -> str | None:
    """Return the beginning of a file as text, or None if it is not text."""
    if head.startswith(b"YUV4MPEG2 "):  # a video whose header, and dark first frame, may pass for text
        return None
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        if e.reason != "unexpected end of data":
            return None
        text = head[: e.start].decode("utf-8-sig")
    return text if all(c.isprintable() or c in "\t\n\f\r" for c in text) else None


def _kind_of_text(text: str) -> str:
    start = text.lstrip().lower()
    if start.startswith("version https://git-lfs"):
        return "a pointer of Git LFS, not the video itself; run git lfs pull"
    if start.startswith(("<!doctype html", "<html", "<head")):
        return "a web page, not a video; download the video itself"
    if start.startswith(_PLAYLISTS) or any(tag in start for tag in _PLAYLISTS if tag.startswith("<")):
        return "a playlist, which only names other files; give one of these"
    return "a text file; give a video file"


@contextmanager
def as_clip_error(path: Path) -> Iterator[None]:
    """Turn FFmpeg's errors into `ClipError`."""
    try:
        yield
    except av.error.FFmpegError as e:
        raise ClipError(
            f"{path} cannot be read as a video ({e.strerror}): it is not one, is cut short or is damaged; "
            "check that it plays"
        ) from e


OpenedVideo = tuple[InputContainer, av.VideoStream]


@contextmanager
def open_video(path: Path) -> Iterator[OpenedVideo]:
    """Open a video file, and its best video stream.

    Raises:
        ClipError: as for `require_file`; no container that is read, none with a video, or frames that are too large.
        av.error.FFmpegError: it is damaged; see `as_clip_error`.
    """
    require_file(path)
    try:
        # An absolute path, or FFmpeg reads the "a" of "a:b.mp4" as a protocol.
        container = av.open(str(path.absolute()), options=pixel_limits(), container_options=_OPTIONS)
    except av.error.ArgumentError as e:  # for a format that is not in the list
        raise ClipError(f"{path} is not a video of a kind that is read here; convert it to MP4 or Matroska") from e
    with container:
        video = best_video(container, path)
        require_pixels(video, path, may_lack_size=True)  # FFmpeg looks for a key frame for 5 s
        video.codec_context.options = pixel_limits()  # a later frame may be larger
        yield container, video


def pixel_limits() -> dict[str, str]:
    """Return the options that keep a decoder from frames that are too large, also while FFmpeg looks into the file."""
    return {"max_pixels": str(most_pixels() + ALIGNMENT_PIXELS)}


def require_pixels(video: av.VideoStream, name: object, *, may_lack_size: bool = False) -> None:
    """Refuse a stream whose frames are too large.

    Args:
        video: a stream that was opened with `pixel_limits`.
        name: what messages call it.
        may_lack_size: whether the size may become known later; the decoder must then have `pixel_limits` too.

    Raises:
        ClipError: its frames are so large, or have no size.
    """
    pixels = video.codec_context.width * video.codec_context.height
    # Of a codec that the limit kept from opening, the size is not known.
    if pixels > most_pixels() or not (pixels or may_lack_size):
        raise ClipError(
            f"{name} has frames of no size, or of more than {most_pixels()} pixels; if you trust it, set "
            f"{PIXELS_VARIABLE} to how many you allow, or else scale it down"
        )


def require_pixels_despite(error: av.error.FFmpegError, video: av.VideoStream, name: object) -> None:
    """Refuse a stream whose decoder failed because its frames are too large; some decoders then know no size.

    Args:
        error: with which it failed.
        video: see `require_pixels`, as for ``name``.
        name: see there.

    Raises:
        ClipError: that is why.
    """
    require_pixels(video, name, may_lack_size=not isinstance(error, av.error.ArgumentError))


def best_video(container: InputContainer, name: object) -> av.VideoStream:
    """Choose the video stream of a container.

    Args:
        container: an open one.
        name: what messages call it.

    Raises:
        ClipError: it has none, or none that can be decoded.
    """
    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    decodable = [s for s in films if s.codec_context is not None]  # which PyAV's types say is always so
    best = container.streams.best("video")  # not simply the first: that may be a cover picture
    found = next((s for s in decodable if s is best), None) or next(iter(decodable), None)
    if found is not None:
        return found
    if films:
        raise ClipError(f"{name} holds video for which FFmpeg has no decoder here; convert it to H.264")
    pictures = bool(container.streams.video)
    kinds = [*sorted({s.type for s in container.streams if s.type != "video"}), *["a cover picture"] * pictures]
    raise ClipError(f"{name} has no video stream, only {' and '.join(kinds) or 'nothing'}; give a video file")


def share_among(threads: int, video: av.VideoStream) -> None:
    """Let a decoder that is not open yet use this number of threads, or as many as there are cores if 0.

    Small frames are decoded by one thread in any case: on two cores a second one saved an eighth of the time at most,
    for 10 to 60 % more of the cores' (H.264, HEVC, VP9 and AV1 up to 640x360). At 1280x720 it saves up to a third.
    """
    context = video.codec_context
    video.thread_type = "SLICE" if context.name in _ONE_FRAME_AT_A_TIME else "AUTO"
    video.thread_count = 1 if 0 < context.width * context.height <= _SMALL_FRAME else threads


@contextmanager
def ended(packets: Iterator[T]) -> Iterator[Iterator[T]]:
    """Close PyAV's generator of packets: if it is dropped before its end, 150 bytes are never freed."""
    with closing(cast("Generator[T, None, None]", packets)):
        yield packets


def decoded_frames(path: Path, skip: int, threads: int = 0) -> Generator[av.VideoFrame, None, None]:
    """Decode a whole video.

    Args:
        path: a video file.
        skip: how many packets of the video that have data, from the first, are left out.
        threads: of the decoder; 0: as many as there are cores.

    Yields:
        Frames in order of presentation, each with the time of its packet.

    Raises:
        ClipError, av.error.FFmpegError: as for `open_video`.
    """
    with open_video(path) as (container, video), ended(container.demux(video)) as packets:
        share_among(threads, video)
        position, knows_size = 0, bool(video.codec_context.width)
        for packet in packets:
            stop_if_dropped()
            position += bool(packet.size)
            if position > skip or not packet.size:  # the last one is empty, and flushes
                frames = _decoded(packet, video, path)
                if frames and not knows_size:
                    require_pixels(video, path)
                    knows_size = True
                yield from frames


def _decoded(packet: av.Packet[av.VideoStream], video: av.VideoStream, path: Path) -> list[av.VideoFrame]:
    try:
        return packet.decode()
    except av.error.FFmpegError as e:
        require_pixels_despite(e, video, path)
        raise

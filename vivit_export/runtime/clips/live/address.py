"""Addresses of live video, and what FFmpeg may open for each.

An address is only ever one that a user typed. FFmpeg is restricted to the protocols that it needs, so that nothing that
is sent (a playlist of HLS, a description of a session) can make it open a file of this machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit, urlunsplit

from vivit_export.errors import UsageError

Scheme = Literal["rtsp", "rtsps", "http", "https", "udp", "tcp"]
OnLate = Literal["drop", "wait"]

STANDARD_INPUT = "-"
_DEVICE = re.compile(r"/dev/video\d+")
_LASTING = ("rtsp", "rtsps", "udp", "tcp", "device")
_IN_REAL_TIME = ("rtsp", "rtsps", "udp", "device")
_PLAYLIST_SUFFIXES = (".m3u8", ".m3u")
_PROTOCOLS = {
    "rtsp": "tcp,udp,rtp",
    "rtsps": "tls,tcp,udp,rtp,srtp",
    "http": "http,https,tls,tcp",  # a server may lead on to https
    "https": "https,tls,tcp",
    "udp": "udp",
    "tcp": "tcp",
    "device": "none",
    "standard input": "none",
}
_OWN_OPTIONS = {
    "rtsp": {"rtsp_flags": "prefer_tcp"},  # nothing is lost on the way
    "rtsps": {"rtsp_flags": "prefer_tcp"},
    "http": {"reconnect": "1"},  # goes on at the same byte if the connection breaks
    "https": {"reconnect": "1"},
    "udp": {"overrun_nonfatal": "1"},
}


@dataclass(frozen=True, slots=True)
class LiveAddress:
    """Where live video comes from.

    Attributes:
        text: what FFmpeg opens.
        kind: the scheme of an address, ``device``, or ``standard input``.
        name: what messages call it: without a password.
    """

    text: str
    kind: str
    name: str

    @property
    def is_lasting(self) -> bool:
        """Whether it is connected again when it ends: a server or camera is, a file over HTTP is not."""
        return self.kind in _LASTING

    @property
    def on_late(self) -> OnLate:
        """What happens by default to windows that come faster than the engine runs.

        What is sent in real time cannot wait; whoever sends the others waits until they are read.
        """
        return "drop" if self.kind in _IN_REAL_TIME else "wait"

    @property
    def is_playlist(self) -> bool:
        """Whether it names an HLS playlist, whose segments are fetched from their addresses."""
        return self.kind in ("http", "https") and urlsplit(self.text).path.lower().endswith(_PLAYLIST_SUFFIXES)

    @property
    def may_use_tls(self) -> bool:
        """Whether a certificate says who sends, at this address or at one that it leads to."""
        return self.kind in ("http", "https", "rtsps")

    @property
    def schemes(self) -> tuple[str, ...]:
        """What HTTP may lead on to."""
        return ("https",) if self.kind == "https" else ("http", "https")

    def options(self, formats: tuple[str, ...]) -> dict[str, str]:
        """Return FFmpeg's options.

        Args:
            formats: containers that hold all their data.
        """
        more = ("hls",) if self.is_playlist else ("rtsp",) if self.kind.startswith("rtsp") else ()
        allowed = {"format_whitelist": ",".join((*formats, *more))}
        # FFmpeg ends the process where it would use a connection again that it did not make.
        once = {"http_persistent": "0", "http_multiple": "0"} if self.is_playlist else {}
        return allowed | {"protocol_whitelist": _PROTOCOLS[self.kind]} | _OWN_OPTIONS.get(self.kind, {}) | once


def is_live(value: object) -> bool:
    """Return whether a value names live video: an address with a known scheme, ``/dev/videoN``, or ``-``."""
    if not isinstance(value, str):
        return False
    return value == STANDARD_INPUT or bool(_DEVICE.fullmatch(value)) or _scheme(value) in get_args(Scheme)


def live_address(text: str) -> LiveAddress:
    """Read the address of live video.

    Raises:
        UsageError: it is none, or names no host.
    """
    if not is_live(text):
        schemes = ", ".join(f"{scheme}://" for scheme in get_args(Scheme))
        raise UsageError(
            f"{text!r} names no live video; give an address ({schemes}), /dev/videoN or - (standard input), and read "
            "files with predict_videos"
        )
    if text == STANDARD_INPUT:
        return LiveAddress(text, "standard input", "standard input")
    if _DEVICE.fullmatch(text):
        return LiveAddress(text, "device", text)
    scheme = _scheme(text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise UsageError(f"{text!r} is not an address ({e}); write {scheme}://HOST:PORT/…") from None
    if not host and not (scheme == "udp" and port):  # udp://:5000 listens
        raise UsageError(f"{text!r} names no host; write {scheme}://HOST:PORT/…")
    if scheme in ("udp", "tcp") and not port:
        raise UsageError(f"{text!r} names no port; write {scheme}://HOST:PORT")
    written = f"{scheme}{text[len(scheme) :]}"  # FFmpeg knows schemes in small letters
    return LiveAddress(written, scheme, _without_password(written))


def _scheme(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator else ""


def _without_password(text: str) -> str:
    parts = urlsplit(text)
    user, at, host = parts.netloc.rpartition("@")
    if ":" not in user:
        return text
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:…{at}{host}"))

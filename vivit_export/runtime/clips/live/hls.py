"""Fetch playlists of HLS (RFC 8216) and the parts of the video that they name.

FFmpeg would fetch them too, but without looking at certificates: its reader of playlists hands the options of TLS on to
nothing that it opens.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from vivit_export.errors import ClipError, option
from vivit_export.runtime.clips.live.trust import authorities, distrusted


class PartFetcher:
    """Opens what a playlist names, for the ``io_open`` of ``av.open``.

    Args:
        name: what messages call the playlist.
        schemes: of the addresses that may be opened.
        timeout: longest time without data, in seconds.
    """

    def __init__(self, name: str, schemes: tuple[str, ...], timeout: float) -> None:
        self._name, self._schemes, self._timeout = name, schemes, timeout
        self._opener = request.OpenerDirector()
        for handler in (
            request.ProxyHandler(),
            request.HTTPHandler(),
            request.HTTPSHandler(context=ssl.create_default_context(cafile=authorities() or None)),
            _Redirects(self._require_allowed),
            request.HTTPDefaultErrorHandler(),
            request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def __call__(self, url: str, flags: int, options: Mapping[str, str]) -> Part:
        """Open an address.

        Args:
            url: what the playlist names, made absolute.
            flags: FFmpeg's; always for reading.
            options: FFmpeg's; ``offset`` and ``end_offset`` choose bytes of the file.

        Raises:
            ClipError: it may not be opened, or cannot be.
        """
        self._require_allowed(url)
        wanted = request.Request(url, headers={"User-Agent": "vivit-export"})
        first, end = int(options.get("offset", 0)), int(options.get("end_offset", 0))
        if first or end:
            wanted.add_header("Range", f"bytes={first}-{end - 1 if end else ''}")
        try:
            answer = self._opener.open(wanted, timeout=self._timeout)
        except (OSError, http.client.HTTPException) as e:
            raise self.fault(url, e) from e
        if first and answer.status != http.client.PARTIAL_CONTENT:
            answer.close()
            raise ClipError(f"{self._name}: the server of {url} sends no parts of files; let it send whole ones")
        return Part(self, url, answer)

    def fault(self, url: str, error: Exception) -> ClipError:
        """Say why an address cannot be read."""
        reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
        if isinstance(reason, HTTPError):
            return ClipError(f"{self._name}: {url} answers {reason.code} {reason.reason}; check the playlist")
        if isinstance(reason, ssl.SSLCertVerificationError):
            return distrusted(url, reason.verify_message)
        if isinstance(reason, TimeoutError):
            return ClipError(
                f"{self._name}: {url} sent nothing for {self._timeout:g} s; check that it is still sending, or give it "
                f"longer with {option('timeout')}"
            )
        return ClipError(f"{self._name}: {url} cannot be read ({reason}); check that it is still sending")

    def _require_allowed(self, url: str) -> None:
        scheme = urlsplit(url).scheme
        if scheme.startswith("crypto"):
            raise ClipError(f"{self._name} is encrypted (AES-128), which is not read here; send it over https instead")
        if scheme not in self._schemes:
            allowed = " and ".join(f"{scheme}://" for scheme in self._schemes)
            raise ClipError(f"{self._name} leads to {url}, but may only lead to {allowed}; send all of it from there")


class Part:
    """A file as it comes; FFmpeg reads and closes it."""

    def __init__(self, fetcher: PartFetcher, url: str, answer: http.client.HTTPResponse) -> None:
        self._fetcher, self._url, self._answer = fetcher, url, answer

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, and none at the end.

        Raises:
            ClipError: it breaks off.
        """
        try:
            return self._answer.read(size)
        except (OSError, http.client.HTTPException) as e:
            raise self._fetcher.fault(self._url, e) from e

    def close(self) -> None:
        """Hang up."""
        self._answer.close()


class _Redirects(request.HTTPRedirectHandler):
    """Follows a server that leads on, if it may."""

    def __init__(self, require_allowed: Callable[[str], None]) -> None:
        self._require_allowed = require_allowed

    def redirect_request(self, *given: Any) -> request.Request | None:
        """Return the request for the new address, which comes last in ``given``."""
        self._require_allowed(given[-1])
        return super().redirect_request(*given)

"""Addresses of served models: ``triton://HOST:PORT/MODEL`` for gRPC, ``triton+http://…`` for HTTP.

With TLS, ``triton+grpcs://…`` and ``triton+https://…``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from vivit_export.errors import UsageError

Protocol = Literal["grpc", "http"]

_SCHEMES: dict[str, tuple[Protocol, bool, int]] = {  # whether with TLS, and the default port
    "triton": ("grpc", False, 8001),
    "triton+http": ("http", False, 8000),
    "triton+grpcs": ("grpc", True, 443),
    "triton+https": ("http", True, 443),
}
_TITLES = {("grpc", False): "gRPC", ("http", False): "HTTP", ("grpc", True): "gRPC, TLS", ("http", True): "HTTPS"}
_FORM = (
    "triton://HOST:PORT/MODEL (gRPC) or triton+http://HOST:PORT/MODEL; with TLS, triton+grpcs://HOST:PORT/MODEL or "
    "triton+https://HOST:PORT/MODEL"
)
_OTHERS = ("grpc", "grpcs", "http", "https")  # schemes that other clients have, and that are not paths


@dataclass(frozen=True, slots=True)
class Address:
    """Where a model is served, and how to call it.

    Attributes:
        protocol: ``grpc`` or ``http``.
        host: name or IP address.
        port: of that protocol.
        model: name of the model.
        version: version of the model; empty: the server chooses.
        timeout_seconds: how long one attempt of a request may take.
        retries: how often to send a request again if the server cannot be reached or its queue is full.
        shared_memory: whether to pass clips in shared memory; only if client and server run on one machine.
        tls: whether to encrypt the connection and to check the server's certificate.
        ca: PEM file with the authorities to trust; empty: those of this machine.
    """

    protocol: Protocol
    host: str
    port: int
    model: str
    version: str = ""
    timeout_seconds: float = 60.0
    retries: int = 3
    shared_memory: bool = False
    tls: bool = False
    ca: str = ""

    @property
    def server(self) -> str:
        """``HOST:PORT`` as the client libraries take it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.server} ({_TITLES[self.protocol, self.tls]})"


def is_address(text: object) -> bool:
    """Return whether a value names a served model rather than a file, even if its protocol is unknown."""
    if not isinstance(text, str):
        return False
    scheme, mark, _ = text.partition("://")
    return bool(mark) and (scheme.partition("+")[0] == "triton" or scheme in _OTHERS)


def parse_address(text: str) -> Address:
    """Parse an address.

    Args:
        text: ``SCHEME://HOST[:PORT]/MODEL[/VERSION][?timeout=SECONDS&retries=N&shared_memory=yes&ca=FILE]``, where
            SCHEME is ``triton``, ``triton+http``, ``triton+grpcs`` or ``triton+https``. The default ports are 8001 for
            gRPC, 8000 for HTTP, and 443 with TLS.

    Raises:
        UsageError: the text is not an address.
    """
    try:
        parts = urlsplit(text)
        protocol, tls, port = _SCHEMES[parts.scheme]
        model, _, version = parts.path.strip("/").partition("/")
        if not parts.hostname or not model or "/" in version or parts.username or parts.fragment:
            raise ValueError("a host and a model are needed, and nothing else")
        options = _options(parts.query)
        if "ca" in options and not tls:
            raise UsageError(f"{text} has ca=FILE but no TLS; write triton+grpcs:// or triton+https://, or drop it")
        return Address(protocol, parts.hostname, parts.port or port, model, version, tls=tls, **options)
    except (ValueError, KeyError) as e:
        raise UsageError(f"{text} is not the address of a served model; write {_FORM}") from e


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else ():
        if name == "timeout" and _is_above_zero(value):
            options["timeout_seconds"] = float(value)
        elif name == "retries" and value.isascii() and value.isdigit():
            options["retries"] = int(value)
        elif name == "shared_memory" and value in ("yes", "no"):
            options["shared_memory"] = value == "yes"
        elif name == "ca" and value:
            options["ca"] = value
        else:
            raise UsageError(
                f"{name}={value} cannot follow an address; timeout=SECONDS, retries=N, shared_memory=yes, ca=FILE can"
            )
    return options


def _is_above_zero(value: str) -> bool:
    try:
        return 0 < float(value) < float("inf")
    except ValueError:
        return False

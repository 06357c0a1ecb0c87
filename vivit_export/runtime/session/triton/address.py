"""Addresses of served models: ``triton://HOST:PORT/MODEL`` for gRPC, ``triton+http://…`` for HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from vivit_export.errors import UsageError

Protocol = Literal["grpc", "http"]

_SCHEMES: dict[str, tuple[Protocol, int]] = {"triton": ("grpc", 8001), "triton+http": ("http", 8000)}
_TITLES = {"grpc": "gRPC", "http": "HTTP"}
_FORM = "triton://HOST:PORT/MODEL (gRPC) or triton+http://HOST:PORT/MODEL"


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
    """

    protocol: Protocol
    host: str
    port: int
    model: str
    version: str = ""
    timeout_seconds: float = 60.0
    retries: int = 3
    shared_memory: bool = False

    @property
    def server(self) -> str:
        """``HOST:PORT`` as the client libraries take it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.server} ({_TITLES[self.protocol]})"


def is_address(text: object) -> bool:
    """Return whether a value names a served model rather than a file, even if its protocol is unknown."""
    if not isinstance(text, str):
        return False
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme.partition("+")[0] == "triton"


def parse_address(text: str) -> Address:
    """Parse an address.

    Args:
        text: ``triton[+http]://HOST[:PORT]/MODEL[/VERSION][?timeout=SECONDS&retries=N&shared_memory=yes]``.
            The default ports are 8001 for gRPC and 8000 for HTTP.

    Raises:
        UsageError: the text is not an address.
    """
    try:
        parts = urlsplit(text)
        protocol, port = _SCHEMES[parts.scheme]
        model, _, version = parts.path.strip("/").partition("/")
        if not parts.hostname or not model or "/" in version or parts.username or parts.fragment:
            raise ValueError("a host and a model are needed, and nothing else")
        return Address(protocol, parts.hostname, parts.port or port, model, version, **_options(parts.query))
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
        else:
            raise UsageError(
                f"{name}={value} cannot follow an address; timeout=SECONDS, retries=N and shared_memory=yes can"
            )
    return options


def _is_above_zero(value: str) -> bool:
    try:
        return 0 < float(value) < float("inf")
    except ValueError:
        return False

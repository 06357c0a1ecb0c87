"""One connection to a Triton server, over gRPC or HTTP. The only module that imports tritonclient.

Both protocols are driven by tritonclient's asyncio clients, on one event loop in a thread of its own:
gRPC's library needs a single loop per process, and the synchronous HTTP client may not change threads.
Everything else, including synchronous calls, is built on that (`vivit_export.runtime.session.triton.client`).
"""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
import threading
import uuid
import zlib
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vivit_export.errors import EnvironmentFault, UsageError
from vivit_export.packages import how_to_install, importing
from vivit_export.records import JsonObject
from vivit_export.runtime.session.backend import Float32
from vivit_export.runtime.session.triton.address import Address
from vivit_export.runtime.session.triton.shared_memory import Region

_T = TypeVar("_T")

# After a lost connection gRPC would wait up to two minutes before it tries again: longer than all our retries.
_GRPC_OPTIONS = [
    *((f"grpc.max_{way}_message_length", 2**31 - 1) for way in ("send", "receive")),
    *((f"grpc.{name}_reconnect_backoff_ms", 100) for name in ("initial", "max")),
]

# gRPC status or HTTP status of a server that is gone or shutting down, or whose queue is full.
_PASSING = frozenset({"StatusCode.UNAVAILABLE", "503"})
# What gRPC says of a certificate that it does not accept; for its clients, that is a server that is not there.
_UNTRUSTED = re.compile(
    r"CERTIFICATE_VERIFY_FAILED(: [\w -]+)?|Hostname Verification Check failed|Peer name \S+ is not in peer certificate"
)
# What the client libraries, and reading what they return, raise at an answer that has not the form of Triton's.
_UNREADABLE = (AttributeError, EOFError, LookupError, MemoryError, RecursionError, TypeError, ValueError, zlib.error)


class Unreachable(EnvironmentFault):
    """The server could not be reached, or its queue was full; a retry may succeed."""


class Refused(EnvironmentFault):
    """The server refused the request; the message ends with the server's own sentence."""


class _Loop:
    """An event loop in a daemon thread, made when it is first needed and shared by all connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="vivit-triton", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)


_LOOP = _Loop()


def in_background(work: Coroutine[Any, Any, _T]) -> Future[_T]:
    """Start a coroutine on the loop that all connections share; their coroutines may run nowhere else."""
    return _LOOP.submit(work)


def wait_for(future: Future[_T]) -> _T:
    """Wait for a task on the loop, and cancel it if the wait is interrupted (Ctrl-C)."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class Connection:
    """Talk to one server; every method is a coroutine for `in_background`.

    Args:
        address: where the model is served.

    Raises:
        MissingDependencyError: tritonclient is not installed.
        UsageError: the file of authorities cannot be used.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._tls = _tls_context(address) if address.tls else None
        self._library, self._client_class = _import(address)
        self._client: Any = None
        self._ids = (f"{uuid.uuid4().hex}-{number}" for number in itertools.count())  # no other client has these

    async def open(self) -> None:
        """Make the client here, because only here is the loop known."""
        server, tls = self._address.server, self._address.tls
        if self._address.protocol == "grpc":
            # Both protocols trust the same authorities. None: the ones that come with gRPC.
            roots = self._address.ca or ssl.get_default_verify_paths().cafile
            self._client = self._client_class(server, ssl=tls, root_certificates=roots, channel_args=_GRPC_OPTIONS)
        else:
            seconds = self._address.timeout_seconds
            self._client = self._client_class(server, conn_timeout=seconds, ssl=tls, ssl_context=self._tls)

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def describe(self) -> tuple[JsonObject, JsonObject, JsonObject]:
        """Return the server's metadata, the model's metadata and the model's configuration, as JSON.

        Raises:
            Unreachable: there is no server.
            Refused: there is no such model, or it is not ready, or what answers is not a Triton server.
        """
        as_json = {"as_json": True} if self._address.protocol == "grpc" else {}
        model = (self._address.model, self._address.version)
        server = await self._ask(self._client.get_server_metadata(**as_json), _object)
        metadata = await self._ask(self._client.get_model_metadata(*model, **as_json), _object)
        config = await self._ask(self._client.get_model_config(*model, **as_json), _object)
        return server, metadata, _object(config["config"]) if "config" in config else config

    async def models(self) -> dict[str, str]:
        """Return why each model of the server is not ready, by name; empty if it is."""
        as_json = {"as_json": True} if self._address.protocol == "grpc" else {}

        def reasons(index: Any) -> dict[str, str]:
            entries = index.get("models", []) if isinstance(index, dict) else index
            return {
                str(e["name"]): "" if e.get("state") == "READY" else str(e.get("reason", "not loaded")) for e in entries
            }

        return await self._ask(self._client.get_model_repository_index(**as_json), reasons)

    async def infer(
        self, name: str, batch: npt.NDArray[Any], region: Region | None, outputs: list[str]
    ) -> dict[str, Float32]:
        """Run one batch, from ``region`` if there is one, in a single attempt.

        Raises:
            Unreachable: the server is gone, its queue is full, or it answered another request.
            Refused: the server refuses the batch, or its answer cannot be read.
            TimeoutError: the address's timeout expired.
        """
        from tritonclient.utils import np_to_triton_dtype

        tensor = self._library.InferInput(name, list(batch.shape), np_to_triton_dtype(batch.dtype))
        if region is None:
            tensor.set_data_from_numpy(batch)
        else:
            tensor.set_shared_memory(region.name, batch.nbytes)
        asked = [self._library.InferRequestedOutput(output) for output in outputs]
        model, version = self._address.model, self._address.version
        request = next(self._ids)

        def arrays(answer: Any) -> dict[str, Float32]:
            if (answered := _id_of(answer.get_response())) != request:
                # A server that loses track of its requests would otherwise give the labels of somebody else's clip.
                raise Unreachable(f"it answered request {answered!r:.100} in place of request {request!r}")
            return {output: _numbers(answer.as_numpy(output)) for output in outputs}

        return await self._ask(self._client.infer(model, [tensor], version, asked, request_id=request), arrays)

    async def register(self, region: Region) -> None:
        """Make a region known to the server."""
        await self._ask(
            self._client.register_system_shared_memory(region.name, region.key, region.size_bytes), _nothing
        )

    async def unregister(self, region: Region) -> None:
        """Make the server forget a region."""
        await self._ask(self._client.unregister_system_shared_memory(region.name), _nothing)

    async def _ask(self, call: Awaitable[Any], read: Callable[[Any], _T]) -> _T:
        """Await an answer and read it, and report errors in our words."""
        from aiohttp import ClientConnectorCertificateError, ClientError, ClientResponseError
        from tritonclient.utils import InferenceServerException

        try:
            return read(await asyncio.wait_for(call, self._address.timeout_seconds))
        except asyncio.TimeoutError as e:  # another class before Python 3.11
            raise TimeoutError from e
        except ClientConnectorCertificateError as e:
            raise self._untrusted(e.certificate_error) from e
        except InferenceServerException as e:
            if self._address.tls and (found := _UNTRUSTED.search(e.message())):
                raise self._untrusted(found[0].rpartition(": ")[2]) from e
            kind = Unreachable if e.status() in _PASSING else Refused
            raise kind(_sentence(e.message() or str(e))) from e
        except ClientResponseError as e:  # its text shows the bytes that came
            raise Unreachable("what answers there does not speak HTTP") from e
        except (ClientError, OSError) as e:
            raise Unreachable(_sentence(str(e) or type(e).__name__)) from e
        except _UNREADABLE as e:
            raise Refused("its answer has not the form that Triton's have") from e

    def _untrusted(self, reason: object) -> EnvironmentFault:
        return EnvironmentFault(
            f"the certificate of {self._address.title} is not trusted ({_sentence(str(reason))}); if it is the right "
            "server, name its authority with ?ca=FILE after the address"
        )


def _tls_context(address: Address) -> ssl.SSLContext:
    """Return what HTTP needs; for gRPC, this finds out whether the file can be used at all."""
    try:
        return ssl.create_default_context(cafile=address.ca or None)
    except (OSError, ssl.SSLError) as e:
        raise UsageError(
            f"ca={address.ca} has no certificates that can be read ({e.strerror or e}); give a PEM file"
        ) from e


def _import(address: Address) -> tuple[Any, Any]:
    with importing("tritonclient", "tritonclient", how_to_install("triton")):
        if address.protocol == "grpc":
            import tritonclient.grpc as library
            from tritonclient.grpc.aio import InferenceServerClient
        else:
            import tritonclient.http as library
            from tritonclient.http.aio import InferenceServerClient
    return library, InferenceServerClient


def _object(answer: Any) -> JsonObject:
    if not isinstance(answer, dict):
        raise TypeError("it is not a JSON object")
    return answer


def _nothing(answer: object) -> None:
    """Read an answer that says no more than that it was done."""


def _numbers(array: npt.NDArray[Any]) -> Float32:
    if array.dtype not in (np.float16, np.float32):
        raise TypeError("it has not the type that the model promises")
    return np.array(array, np.float32)


def _id_of(response: Any) -> str:
    """Return the id of an answer, as gRPC or HTTP has it; empty if it has none."""
    return str(response.get("id", "") if isinstance(response, dict) else response.id)


def _sentence(message: str) -> str:
    return " ".join(message.split()).rstrip(".")

"""Sessions on a Triton server that serves a repository from `vivit_export.deploy.triton.deploy`.

The server says which input the model takes: the contract is in the model's configuration, and is checked against
the model's own metadata. For models that take encoded videos, see `vivit_export.runtime.session.triton.videos`.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import MODEL, Bundle
from vivit_export.contract import Contract, Tensor
from vivit_export.errors import BundleError, ClipError, EnvironmentFault, InputError, UsageError, VivitExportError
from vivit_export.limits import MOST_BATCH
from vivit_export.records import JsonObject, parse_json, shown
from vivit_export.runtime.session.backend import Float32
from vivit_export.runtime.session.session import Session
from vivit_export.runtime.session.triton.address import Address, parse_address
from vivit_export.runtime.session.triton.connection import Connection, Refused, Unreachable, in_background, wait_for
from vivit_export.runtime.session.triton.protocol import (
    CONTRACT,
    DATATYPES,
    ENGINE,
    FRAMES_SUFFIX,
    ONNX_SHA256,
    SUBJECT,
    VIDEO,
    VIDEO_SUFFIX,
)
from vivit_export.runtime.session.triton.shared_memory import Region

_FIRST_PAUSE_SECONDS = 0.2  # before the first retry; each further one is twice as long
_FAREWELL_SECONDS = 0.5  # what a server may take to forget our memory: one that hangs is not waited for


def open_server(address: str, bundle: Bundle | None = None) -> Session:
    """Open a session on a served model.

    Args:
        address: see `vivit_export.runtime.session.triton.address.parse_address`.
        bundle: the bundle that the server must serve; None: any.

    Raises:
        UsageError: not an address.
        MissingDependencyError: tritonclient is not installed.
        EnvironmentFault: no server, no such model, a model that is not ready, was not deployed by us or takes videos.
        BundleError: the server serves a graph other than the bundle's.
    """
    backend = TritonBackend(parse_address(address))
    try:
        backend.require_clips()
        backend.require(bundle)
    except BaseException:
        backend.close()
        raise
    return Session(backend.contract, backend, {})


class TritonBackend:
    """A served model; see `vivit_export.runtime.session.backend.Backend`.

    Any number of threads may call `run`, and any coroutine `run_async`. The server's dynamic batcher combines requests
    that are in flight at the same time.

    Attributes:
        contract: input, output, preprocessing and labels, from the server's configuration.
        takes_videos: whether its input is the bytes of one video, uint8 (1, N), instead of clips.

    Raises:
        MissingDependencyError: tritonclient is not installed.
        UsageError: videos cannot be passed in shared memory.
        EnvironmentFault: as for `open_server`.
    """

    at_once = 8  # requests, so that the server can form batches while other clips are prepared

    def __init__(self, address: Address) -> None:
        self.name = "triton"
        self._address = address
        self._connection = Connection(address)
        self._idle: list[Region] = []
        self._under_way: set[Future[dict[str, Float32]]] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._is_cancelled = False
        server, metadata, config = wait_for(in_background(self._open()))
        try:
            texts = _texts(address, config)
            self.contract, self.takes_videos = _read_contract(address, metadata, texts[CONTRACT])
            if self.takes_videos and address.shared_memory:
                raise UsageError(f"shared_memory=yes is for clips, but {address.model} takes videos; drop it")
        except VivitExportError:
            self.close()
            raise
        self._graph = texts[ONNX_SHA256]
        self.batches = (1, _largest_batch(config))
        way = ", clips in shared memory" if address.shared_memory else ""
        version = server.get("version", "of an unknown version")
        self.details = f"Triton {version} at {address.title}, model {address.model}, {texts[ENGINE]}{way}"
        self._input = self.contract.io.inputs[0]
        self._name = VIDEO if self.takes_videos else self._input.name
        self._outputs = [output.name for output in self.contract.io.outputs]

    def require_clips(self) -> None:
        """Refuse a model that takes encoded videos.

        Raises:
            EnvironmentFault: it does.
        """
        if self.takes_videos:
            raise EnvironmentFault(
                f"{_what(self._address)} takes whole video files, as vivit predict sends them; to send clips, "
                f"use the model {model_behind(self._address)}"
            )

    def require(self, bundle: Bundle | None) -> None:
        """Refuse a server whose graph or signature differs from a bundle's.

        Raises:
            BundleError: it does.
        """
        if bundle is None:
            return
        if self._graph != bundle.manifest.files[MODEL].sha256 or self.contract.io != bundle.contract.io:
            raise BundleError(
                f"{self._address.model} at {self._address.title} was deployed from another graph than {bundle.path}; "
                "deploy this bundle, or check the one that is served"
            )

    def run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        """Run one batch and wait for the answer.

        Raises:
            ClipError: the server cannot read the video.
            EnvironmentFault: the server is gone, refuses the batch, or does not answer in time.
        """
        return wait_for(self.submit(batch))

    async def run_async(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        """Do `run` from any event loop."""
        return await asyncio.wrap_future(self.submit(batch))

    def submit(self, batch: npt.NDArray[Any]) -> Future[dict[str, Float32]]:
        """Send one batch and return at once; ``batch`` must not change until the result arrives."""
        future = in_background(self._run(batch))
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def cancel(self) -> None:
        """Cancel requests in flight and all that follow; waiting callers get a `CancelledError` at once."""
        self._is_cancelled = True  # read by `_run`, which may not have begun
        for future in list(self._under_way):
            future.cancel()

    def close(self) -> None:
        """Close the connection; cancel requests in flight and release shared memory."""
        self.cancel()
        in_background(self._close()).result()

    async def _open(self) -> tuple[JsonObject, JsonObject, JsonObject]:
        await self._connection.open()
        try:
            return await self._connection.describe()
        except BaseException as e:
            reason = await self._why_not(e)
            await self._connection.close()
            raise reason from e

    async def _why_not(self, error: BaseException) -> BaseException:
        """Say why a model cannot be opened."""
        where, model = self._address.title, self._address.model
        if isinstance(error, (Unreachable, TimeoutError)):
            said = f" ({error})" if str(error) else f" within {self._address.timeout_seconds:g} s"
            return EnvironmentFault(f"no Triton server answers at {where}{said}; start it, or give the right port")
        if not isinstance(error, Refused):
            return error
        try:
            models = await self._connection.models()
        except (EnvironmentFault, TimeoutError):
            return EnvironmentFault(f"{where} is not a port of Triton for this protocol ({error})")
        if model not in models:
            found = ", ".join(sorted(models)) or "none"
            return EnvironmentFault(f"the Triton server at {where} has no model {model!r}; it has: {found}")
        reason = models[model] or error
        return EnvironmentFault(f"the model {model!r} of the Triton server at {where} is not ready: {reason}")

    async def _close(self) -> None:
        # Those that were given up drop their regions by themselves.
        await asyncio.gather(*self._running, *map(self._drop, self._idle), return_exceptions=True)
        self._idle.clear()
        await self._connection.close()

    async def _run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        if self._is_cancelled:
            raise asyncio.CancelledError
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        region = self._lend(batch) if self._address.shared_memory else None
        if region is None:
            return await self._attempts(batch, None)
        try:
            await asyncio.to_thread(region.write, batch)
            results = await self._attempts(batch, region)
        except BaseException:  # the server may still read it: nobody else gets it
            await asyncio.shield(self._drop(region))
            raise
        self._idle.append(region)
        return results

    async def _attempts(self, batch: npt.NDArray[Any], region: Region | None) -> dict[str, Float32]:
        """Try until the server answers, a few times: a request has no effect but its answer."""
        where, pause = f"the Triton server at {self._address.title}", _FIRST_PAUSE_SECONDS
        what = "a video" if self.takes_videos else f"a batch of {len(batch)}"
        for attempt in range(self._address.retries + 1):
            try:
                return await self._attempt(batch, region)
            except Unreachable as e:
                if attempt == self._address.retries:
                    tries = f"{attempt + 1} attempts" if attempt else "one attempt"
                    raise EnvironmentFault(
                        f"{where} is gone or overloaded: {tries} to run {what} failed ({e}); check that it still runs"
                    ) from e
                if region is not None:
                    region.is_registered = False
            except TimeoutError as e:
                raise EnvironmentFault(
                    f"{where} did not answer within {self._address.timeout_seconds:g} s to {what}; "
                    "check its load, or allow more time with ?timeout=SECONDS after the address"
                ) from e
            except Refused as e:
                _, subject, reason = str(e).partition(SUBJECT)
                if self.takes_videos and subject:
                    raise ClipError(subject + reason) from e
                raise EnvironmentFault(f"{where} refuses {what}: {e}") from e
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, batch: npt.NDArray[Any], region: Region | None) -> dict[str, Float32]:
        if region is not None and not region.is_registered:
            await self._connection.register(region)
            region.is_registered = True
        try:
            return await self._connection.infer(self._name, batch, region, self._outputs)
        except Refused as e:
            # A server that was restarted between two requests does not know the region any more.
            if region is None or "shared memory region" not in str(e):
                raise
            await self._connection.register(region)
            return await self._connection.infer(self._name, batch, region, self._outputs)

    def _lend(self, batch: npt.NDArray[Any]) -> Region | None:
        """Return a region, or None for a batch larger than the largest, which the server must refuse."""
        if len(batch) > self.batches[1]:
            return None
        if self._idle:
            return self._idle.pop()
        clip = np.dtype(self._input.dtype).itemsize * int(np.prod(_clip_shape(self._input)))
        return Region(self.batches[1] * clip)

    async def _drop(self, region: Region) -> None:
        region.free()  # first: the server keeps what it has mapped until it forgets it
        if not region.is_registered:
            return
        # A server that is gone has forgotten it.
        with contextlib.suppress(EnvironmentFault, TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._connection.unregister(region), _FAREWELL_SECONDS)


def model_behind(address: Address) -> str:
    """Return the name of the model that takes clips, given the name of the model before it."""
    suffix = next((end for end in (VIDEO_SUFFIX, FRAMES_SUFFIX) if address.model.endswith(end)), "")
    return address.model.removesuffix(suffix)


def _what(address: Address) -> str:
    return f"the model {address.model!r} of the Triton server at {address.title}"


def _texts(address: Address, config: JsonObject) -> dict[str, str]:
    """Return the parameters of a configuration that we wrote."""
    parameters = config.get("parameters")
    found = {}
    for name in (CONTRACT, ONNX_SHA256, ENGINE):
        parameter = parameters.get(name) if isinstance(parameters, dict) else None
        text = parameter.get("string_value") if isinstance(parameter, dict) else None
        if not isinstance(text, str):
            raise EnvironmentFault(
                f"{_what(address)} has no parameter {name!r} in its configuration; deploy it with: vivit deploy triton"
            )
        found[name] = text
    return found


def _largest_batch(config: JsonObject) -> int:
    """Return how many clips a request may have: no more than one of ours, whatever a server says."""
    largest = config.get("max_batch_size", 0)
    return min(max(1, largest), MOST_BATCH) if isinstance(largest, int) else 1


def _read_contract(address: Address, metadata: JsonObject, text: str) -> tuple[Contract, bool]:
    """Read the contract of a configuration, and check it against the metadata.

    Returns:
        It, and whether the model takes encoded videos.
    """
    what = _what(address)
    try:
        contract = Contract.from_json(parse_json(text))
    except (ValueError, InputError) as e:
        raise EnvironmentFault(f"{what} has a contract that this version cannot read ({e}); deploy it again") from e
    try:
        has = {kind: _signature(metadata, kind) for kind in ("inputs", "outputs")}
    except (AttributeError, LookupError, TypeError, ValueError) as e:
        raise EnvironmentFault(f"{what} describes its inputs and outputs in another form than Triton's") from e
    clips, outputs = _promised(contract.io.inputs), _promised(contract.io.outputs)
    takes_videos = VIDEO in has["inputs"]
    if takes_videos and has["outputs"] != outputs:
        behind = model_behind(address)
        raise EnvironmentFault(
            f"{what} takes videos but predicts nothing; use {behind + VIDEO_SUFFIX} for videos, or {behind} for clips"
        )
    promises = {"inputs": {VIDEO: ("UINT8", [-1, -1])} if takes_videos else clips, "outputs": outputs}
    for kind, promised in promises.items():
        if has[kind] != promised:
            raise EnvironmentFault(
                f"{what} has the {kind} {shown(has[kind])}, but its contract says {promised}; deploy it again"
            )
    return contract, takes_videos


_Signature = dict[str, tuple[str | None, list[int]]]


def _signature(metadata: JsonObject, kind: str) -> _Signature:
    return {t["name"]: (t["datatype"], [int(d) for d in t["shape"]]) for t in metadata.get(kind, ())}


def _promised(tensors: tuple[Tensor, ...]) -> _Signature:
    return {t.name: (DATATYPES.get(t.dtype), [-1, *_clip_shape(t)]) for t in tensors}


def _clip_shape(tensor: Tensor) -> list[int]:
    return [int(d) for d in tensor.shape[1:]]

"""Sessions on a Triton server: one that serves a repository of `vivit_export.runtime.triton.deploy`.

Which input the model takes is read from the server: the contract lies in the model's configuration and is
held to the model's own metadata.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import MODEL, Bundle
from vivit_export.contract import Contract, Tensor
from vivit_export.errors import BundleError, EnvironmentFault, InputError
from vivit_export.runtime.session.backend import Float32
from vivit_export.runtime.session.session import Session
from vivit_export.runtime.triton.address import Address, parse_address
from vivit_export.runtime.triton.config import CONTRACT, ENGINE, ONNX_SHA256
from vivit_export.runtime.triton.connection import Connection, Refused, Unreachable, in_background
from vivit_export.runtime.triton.front_config import VIDEO
from vivit_export.runtime.triton.shared_memory import Region

_DATATYPES = {"uint8": "UINT8", "float32": "FP32", "float16": "FP16"}
_FIRST_PAUSE_SECONDS = 0.2  # before the first retry; each further one is twice as long


def open_server(address: str, bundle: Bundle | None = None) -> Session:
    """Open a session on a served model.

    Args:
        address: see `vivit_export.runtime.triton.address.parse_address`.
        bundle: what the server is expected to serve; None: whatever it serves.

    Raises:
        UsageError: not an address.
        MissingDependencyError: tritonclient is not installed.
        EnvironmentFault: no server, no such model, a model that is not ready or was not deployed by us.
        BundleError: it serves another graph than the bundle's.
    """
    backend = TritonBackend(parse_address(address))
    try:
        backend.require(bundle)
    except BaseException:
        backend.close()
        raise
    return Session(backend.contract, backend, {})


class TritonBackend:
    """A served model; see `vivit_export.runtime.session.backend.Backend`.

    Any number of threads may call `run`, and any coroutine `run_async`; what is under way at once the server's
    dynamic batcher runs together.

    Attributes:
        contract: input, output, preprocessing and labels, as the server's configuration has them.

    Raises:
        MissingDependencyError: tritonclient is not installed.
        EnvironmentFault: as for `open_server`.
    """

    def __init__(self, address: Address) -> None:
        self.name = "triton"
        self._address = address
        self._connection = Connection(address)
        self._idle: list[Region] = []
        server, metadata, config = in_background(self._open()).result()
        try:
            self.contract, self._graph = _read_contract(address, metadata, config)
        except EnvironmentFault:
            self.close()
            raise
        self.batches = (1, max(1, int(config.get("max_batch_size", 0))))
        way = ", clips in shared memory" if address.shared_memory else ""
        engine = config["parameters"][ENGINE]["string_value"]
        self.details = f"Triton {server['version']} at {address.title}, model {address.model}, {engine}{way}"
        self._input = self.contract.io.inputs[0]
        self._outputs = [output.name for output in self.contract.io.outputs]

    def require(self, bundle: Bundle | None) -> None:
        """Refuse a server that serves another graph, or another signature, than a bundle's.

        Raises:
            BundleError: it does.
        """
        if bundle is None:
            return
        if self._graph != bundle.manifest["files"][MODEL]["sha256"] or self.contract.io != bundle.contract.io:
            raise BundleError(
                f"{self._address.model} at {self._address.title} was deployed from another graph than {bundle.path}; "
                "deploy this bundle, or check the one that is served"
            )

    def run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        """Run one batch and wait for the answer.

        Raises:
            EnvironmentFault: the server is gone, refuses the batch, or does not answer in time.
        """
        waiting = self.submit(batch)
        try:
            return waiting.result()
        except BaseException:  # Ctrl-C too
            waiting.cancel()
            raise

    async def run_async(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        """`run`, from any event loop."""
        return await asyncio.wrap_future(self.submit(batch))

    def submit(self, batch: npt.NDArray[Any]) -> Future[dict[str, Float32]]:
        """Send one batch and return at once; ``batch`` must not change until there is a result."""
        return in_background(self._run(batch))

    def close(self) -> None:
        """Close the connection; shared memory is given back."""
        in_background(self._close()).result()

    async def _open(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
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
        for region in self._idle:
            await self._drop(region)
        self._idle.clear()
        await self._connection.close()

    async def _run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        region = self._lend(batch) if self._address.shared_memory else None
        if region is not None:
            await asyncio.to_thread(region.write, batch)
        try:
            results = await self._attempts(batch, region)
        except BaseException:
            if region is not None:  # the server may still read it: nobody else gets it
                await asyncio.shield(self._drop(region))
            raise
        if region is not None:
            self._idle.append(region)
        return results

    async def _attempts(self, batch: npt.NDArray[Any], region: Region | None) -> dict[str, Float32]:
        """Try until the server answers, a few times: a request has no effect but its answer."""
        where, pause = f"the Triton server at {self._address.title}", _FIRST_PAUSE_SECONDS
        for attempt in range(self._address.retries + 1):
            try:
                return await self._attempt(batch, region)
            except Unreachable as e:
                if attempt == self._address.retries:
                    tries = f"{attempt + 1} attempts" if attempt else "one attempt"
                    raise EnvironmentFault(
                        f"{where} went away or has no room: {tries} to run a batch of {len(batch)} failed ({e}); see "
                        "whether it still runs"
                    ) from e
                if region is not None:
                    region.is_registered = False
            except TimeoutError as e:
                raise EnvironmentFault(
                    f"{where} did not answer within {self._address.timeout_seconds:g} s to a batch of {len(batch)}; "
                    "see what it is busy with, or give it longer with ?timeout=SECONDS behind the address"
                ) from e
            except Refused as e:
                raise EnvironmentFault(f"{where} refuses a batch of {len(batch)}: {e}") from e
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, batch: npt.NDArray[Any], region: Region | None) -> dict[str, Float32]:
        if region is not None and not region.is_registered:
            await self._connection.register(region)
            region.is_registered = True
        try:
            return await self._connection.infer(self._input.name, batch, region, self._outputs)
        except Refused as e:
            # A server that was restarted between two requests does not know the region any more.
            if region is None or "shared memory region" not in str(e):
                raise
            await self._connection.register(region)
            return await self._connection.infer(self._input.name, batch, region, self._outputs)

    def _lend(self, batch: npt.NDArray[Any]) -> Region | None:
        """A region, or none for a batch that is beyond the largest: the server shall say so."""
        if len(batch) > self.batches[1]:
            return None
        if self._idle:
            return self._idle.pop()
        clip = np.dtype(self._input.dtype).itemsize * int(np.prod(_clip_shape(self._input)))
        return Region(self.batches[1] * clip)

    async def _drop(self, region: Region) -> None:
        try:
            if region.is_registered:
                await self._connection.unregister(region)
        except (EnvironmentFault, TimeoutError):
            pass  # a server that is gone has forgotten it
        finally:
            region.free()


def _read_contract(address: Address, metadata: dict[str, Any], config: dict[str, Any]) -> tuple[Contract, str]:
    """Read contract and hash of the graph from a configuration, and hold the contract to the metadata."""
    what = f"the model {address.model!r} of the Triton server at {address.title}"
    if VIDEO in {tensor["name"] for tensor in metadata.get("inputs", ())}:
        raise EnvironmentFault(
            f"{what} takes the bytes of video files; name the one behind it, without -frames or -video at the end"
        )
    parameters = config.get("parameters", {})
    try:
        texts = {key: str(parameters[key]["string_value"]) for key in (CONTRACT, ONNX_SHA256, ENGINE)}
        contract = Contract.from_json(json.loads(texts[CONTRACT]))
    except KeyError as e:
        raise EnvironmentFault(
            f"{what} has no parameter {e} in its configuration; deploy it with: vivit deploy triton"
        ) from e
    except (ValueError, InputError) as e:
        raise EnvironmentFault(f"{what} has a contract that this version cannot read ({e}); deploy it again") from e
    for kind, tensors in (("inputs", contract.io.inputs), ("outputs", contract.io.outputs)):
        served = {t["name"]: (t["datatype"], [int(d) for d in t["shape"]]) for t in metadata.get(kind, ())}
        promised = {t.name: (_DATATYPES.get(t.dtype), [-1, *_clip_shape(t)]) for t in tensors}
        if served != promised:
            raise EnvironmentFault(f"{what} has the {kind} {served}, but its contract says {promised}; deploy it again")
    return contract, texts[ONNX_SHA256]


def _clip_shape(tensor: Tensor) -> list[int]:
    return [int(d) for d in tensor.shape[1:]]

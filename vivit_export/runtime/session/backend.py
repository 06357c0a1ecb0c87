"""What all back ends share: a protocol, and a pool of items that only one thread may use at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import MODEL, MODEL_DATA, Bundle
from vivit_export.bundle.engines import Verification
from vivit_export.precision import Precision
from vivit_export.runtime.session.device import Device

Float32 = npt.NDArray[np.float32]
T = TypeVar("T")


class Backend(Protocol):
    """Run one graph or engine; any number of threads may call `run` at once.

    A back end may also have ``at_once``, how many batches keep it busy (otherwise 1), and ``allocate(shape, dtype)``,
    which makes memory that it reads faster than other arrays.

    Attributes:
        name: as in `vivit_export.runtime.select.ORDER`.
        details: version, device and arithmetic, for people.
        batches: (smallest, largest) number of clips per call.
    """

    name: str
    details: str
    batches: tuple[int, int]

    def run(self, batch: npt.NDArray[Any]) -> dict[str, Float32]:
        """Run one batch (B, ...) of the contract's dtype and shape, B within ``batches``.

        Returns:
            float32 arrays (B, ...) by output name, owned by the caller.
        """
        ...

    def close(self) -> None:
        """Free all resources; no call is in progress and none follows."""
        ...


def join_outputs(parts: Sequence[Mapping[str, Float32]]) -> dict[str, Float32]:
    """Join the results of one batch after the other.

    Args:
        parts: arrays (B, ...) by output name, of at least one batch; all have the same names.

    Returns:
        arrays (N, ...) by output name, in the order of the batches.
    """
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class LocalBackend(Backend, Protocol):
    """A back end that runs files of a bundle on this machine."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the bundle's files that it runs."""
        ...

    @property
    def device(self) -> Device | None:
        """Where it runs; None if that is unknown."""
        ...

    @property
    def verified_on(self) -> tuple[Verification, ...]:
        """Devices on which these files were proven when the bundle was made."""
        ...


def graph_files(bundle: Bundle) -> tuple[str, ...]:
    """Return the names of the files that an engine runs which loads the portable graph."""
    return tuple(name for name in (MODEL, MODEL_DATA) if name in bundle.manifest.files)


def arithmetic(stored: Precision, computed: Precision) -> str:
    """Describe the arithmetic of a CPU engine.

    Args:
        stored: precision of the bundle.
        computed: floating-point type that the engine uses.
    """
    if stored is Precision.INT8:
        return f"int8 Linears, {computed} otherwise"
    if stored is Precision.FP8:
        return f"fp8 roundings emulated in {computed}"
    return computed if stored == computed else f"{computed} arithmetic on {stored} weights"


class Pool(Generic[T]):
    """Lend items to threads, each to one thread at a time; make another when all are lent.

    There are never more items than there were threads at once, however many threads come and go.

    Args:
        make: makes an item; never called by two threads at once.
        free: frees one.
    """

    def __init__(self, make: Callable[[], T], free: Callable[[T], None]) -> None:
        self._make, self._free_item = make, free
        self._idle: list[T] = []
        self._lock = threading.Lock()
        self._making = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[T]:
        """Yield an item that no other thread uses. After an exception it is freed, because its state is unknown."""
        with self._lock:
            item = self._idle.pop() if self._idle else None
        if item is None:
            with self._making:
                item = self._make()
        try:
            yield item
        except BaseException:
            self._free_item(item)
            raise
        with self._lock:
            self._idle.append(item)

    def close(self) -> None:
        """Free all items; none is lent."""
        with self._lock:
            items, self._idle = self._idle, []
        for item in items:
            self._free_item(item)

"""A local Ray or a cluster, and the flow of batches through it. The only module that knows Ray.

::

    partitions ──► readers: tasks of one CPU each ──► engines: one actor per share of a GPU ──► the caller, who writes
                   videos to batches                  batches to results

Ray Data holds back readers when engines are behind, and engines when the caller is, and runs again what a process or a
machine that ended had begun. A row of its blocks is a whole batch, so batches are never split or joined.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import re
import secrets
import signal
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar, cast

import numpy as np

from vivit_export import __version__
from vivit_export.datasets.engine import Engine, Probe, probe
from vivit_export.datasets.inputs import Partition
from vivit_export.datasets.reading import read_batches
from vivit_export.datasets.work import Batch, Job, Outcome
from vivit_export.errors import EnvironmentFault, UsageError, VivitExportError, option
from vivit_export.leftovers import scratch
from vivit_export.packages import how_to_install
from vivit_export.signals import uninterrupted

Item = TypeVar("Item")
Result = TypeVar("Result")
LOCAL = "local"
_ADDRESS = re.compile(r"(?P<host>[^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")
_CONNECT_SECONDS = 5.0
_TRIES = 3  # to start
_BLOCK_BYTES = 32 << 20  # what a reader collects before an engine gets it
_ITEMS_AHEAD = 2  # of each engine
_PARTITIONS_AT_ONCE = 4096  # the list of these is what Ray holds in memory, besides batches


def choose_address(address: str) -> str:
    """Return ``local``, or the address of a cluster, HOST:PORT.

    Args:
        address: ``local``, HOST:PORT, or empty: what the environment variable ``RAY_ADDRESS`` says, else ``local``.

    Raises:
        UsageError: it is something else.
    """
    told = address or os.environ.get("RAY_ADDRESS", "") or LOCAL
    if told == LOCAL or _ADDRESS.fullmatch(told):
        return told
    where = "" if address else " (from RAY_ADDRESS)"
    fix = f"; put {option('ray')} after everything else, or write {option('ray')}=local" if not where else ""
    raise UsageError(
        f"{told!r}{where} is not the address of a Ray cluster; write HOST:PORT, such as 10.0.0.5:6379{fix}"
    )


class Cluster:
    """A Ray that this process is connected to; `connected` makes one.

    Attributes:
        text: what it is, for people.
    """

    def __init__(self, ray: Any, text: str) -> None:
        self._ray, self.text = ray, text

    def probe(self, engine: type[Engine], job: Job, gpus: float) -> Probe:
        """Open the engine once where it will run, and say what it is.

        Args:
            engine: its kind.
            job: says which.
            gpus: share of a GPU that it takes.

        Raises:
            EnvironmentFault: a machine has another version of this package, or none.
            VivitExportError: why the engine cannot be opened.
        """
        with _told():
            task = self._ray.remote(num_cpus=0 if gpus else 1, num_gpus=gpus)(probe)
            version, found = self._ray.get(task.remote(engine, job))
        self._require_version(version)
        if isinstance(found, VivitExportError):
            raise found
        assert isinstance(found, Probe)
        return found

    def require_version(self) -> None:
        """Fail if a machine has another version of this package, or none, as `probe` does.

        Raises:
            EnvironmentFault: it is so.
        """
        with _told():
            self._require_version(self._ray.get(self._ray.remote(num_cpus=0)(_version).remote()))

    def _require_version(self, found: str) -> None:
        if found != __version__:
            raise EnvironmentFault(
                f"the machines of {self.text} have vivit-export {found}, and this one {__version__}; install one "
                "version on all"
            )

    def in_order(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        *,
        engines: int,
        gpus: float,
    ) -> Generator[Result, None, None]:
        """Apply a function to items in other processes, and yield the results in the order of the items.

        A process that ends is replaced, and does again what it had begun. Few items are in memory at a time.

        Args:
            make: makes the function, once in each process; what it holds is sent once.
            items: what it is applied to.
            engines: how many processes.
            gpus: share of a GPU of each.

        Raises:
            VivitExportError: what the function raised.
            EnvironmentFault: Ray gave up.
        """
        with _told():
            shared = self._ray.put(make)
            actor = self._ray.remote(num_cpus=0, num_gpus=gpus, max_restarts=-1, max_task_retries=-1)(_FunctionActor)
            actors = [actor.remote(shared) for _ in range(engines)]
        begun: deque[Any] = deque()
        for number, item in enumerate(items):
            with _told():
                begun.append(actors[number % engines].apply.remote(item))
            if len(begun) == _ITEMS_AHEAD * engines:
                yield self._result(begun.popleft())
        while begun:
            yield self._result(begun.popleft())

    def _result(self, reference: Any) -> Any:
        with _told():
            found = self._ray.get(reference)
        if isinstance(found, VivitExportError):
            raise found
        return found

    def engines(self, share: float, device: str | None) -> tuple[int, float]:
        """Return how many engines there are room for, and the share of a GPU of each: 0 on CPUs, with one per machine.

        Args:
            share: of a GPU, that each engine takes.
            device: ``cpu``: leave GPUs alone.
        """
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        on_each = math.floor(1 / share + 1e-9)  # an engine never has parts of two
        gpus = sum(int(node.get("GPU", 0)) * on_each for node in nodes) if device != "cpu" else 0
        return (gpus, share) if gpus else (max(1, len(nodes)), 0.0)

    def run(
        self,
        partitions: Iterator[Partition],
        engine: type[Engine],
        job: Job,
        *,
        engines: int,
        gpus: float,
        readers: int | None,
    ) -> Generator[Outcome, None, None]:
        """Read and run partitions, many at once, and yield the outcome of each batch as it is there.

        Args:
            partitions: what to run.
            engine: kind of the engines.
            job: what to do with it.
            engines: how many.
            gpus: share of a GPU of each.
            readers: how many tasks read at once; None: as many as there are CPUs.

        Raises:
            EnvironmentFault: Ray gave up.
        """
        import ray.data

        pool = ray.data.TaskPoolStrategy(readers)
        actors = ray.data.ActorPoolStrategy(size=engines)
        while some := list(islice(partitions, _PARTITIONS_AT_ONCE)):
            with _told():
                rows = [{"partition": pickle.dumps(partition)} for partition in some]
                data = ray.data.from_items(rows, override_num_blocks=len(rows))
                data = data.map_batches(_read, batch_size=1, compute=pool, fn_kwargs={"job": job}, num_cpus=1)
                # An engine on CPUs shares them with the readers, as in one process: whoever has work computes.
                data = data.map(
                    _EngineActor, compute=actors, fn_constructor_args=(engine, job), num_cpus=0, num_gpus=gpus or None
                )
                for row in data.iter_rows():
                    yield pickle.loads(row["outcome"])


def _read(rows: Mapping[str, Any], job: Job) -> Iterator[dict[str, object]]:
    """Be a reader's task."""
    (partition,) = rows["partition"]
    for batch in read_batches(pickle.loads(partition), job):
        head = pickle.dumps(replace(batch, rows=batch.rows[:0]))
        yield {"batch": _cell(head), "rows": _cell(batch.rows.tobytes())}


def _cell(content: bytes) -> Any:
    """Return a column of one row; NumPy would cut zeros from the end of bytes."""
    column = np.empty(1, object)
    column[0] = content
    return column


class _EngineActor:
    """Be an engine's actor."""

    def __init__(self, engine: type[Engine], job: Job) -> None:
        self._engine = engine(job)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, bytes]:
        head: Batch = pickle.loads(row["batch"])
        rows = np.frombuffer(row["rows"], head.rows.dtype).reshape(-1, *head.rows.shape[1:])
        return {"outcome": pickle.dumps(self._engine.run(replace(head, rows=rows)))}


class _FunctionActor:
    """Apply a function; an error of ours is a result, so that it arrives as it is."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._make, self._function = make, cast("Callable[[Any], Any] | None", None)

    def apply(self, item: Any) -> Any:
        try:
            if self._function is None:
                self._function = self._make()
            return self._function(item)
        except VivitExportError as e:
            return e


def require_share(gpu_share: float) -> None:
    """Refuse a share of a GPU that no engine can have.

    Raises:
        UsageError: it is not above 0 and at most 1.
    """
    if not 0 < gpu_share <= 1:
        raise UsageError(f"{option('gpu_share', f'{gpu_share:g}')} must be above 0 and at most 1")


def _version() -> str:
    return __version__


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Start a Ray on this machine, which ends with the context, or connect to a cluster.

    Args:
        address: as `choose_address` returns it.

    Raises:
        MissingDependencyError: Ray is not installed.
        EnvironmentFault: the cluster cannot be reached, or has another version of Ray or of Python.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anybody
    with ExitStack() as stack:
        options: dict[str, object]
        if address == LOCAL:
            os.environ.pop("RAY_ADDRESS", None)
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            folder = stack.enter_context(scratch())
            options = {"include_dashboard": False, "_temp_dir": str(folder)}
        else:
            _require_listener(address)
            options = {"address": address}
        import ray
        import ray.data

        _silence(ray)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        stack.callback(_shut_down, ray)
        with _told(address):
            _init(ray, _TRIES if address == LOCAL else 1, options)
        for number, handler in handlers.items():  # Ray has put its own in their place, which ends without a word
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)
        text = "Ray on this machine" if address == LOCAL else f"the Ray cluster at {address}"
        yield Cluster(ray, text)


def _init(ray: Any, tries: int, options: dict[str, object]) -> None:
    for left in reversed(range(tries)):
        try:
            ray.init(log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL, **options)
            return
        except Exception:  # on a busy machine it gives up after half a minute
            if not left:
                raise
            ray.shutdown()


def _shut_down(ray: Any) -> None:
    with uninterrupted():
        ray.shutdown()


def _silence(ray: Any) -> None:
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK_BYTES


def _require_listener(address: str) -> None:
    """Say at once that nobody answers; Ray takes minutes to find out."""
    found = _ADDRESS.fullmatch(address)
    assert found is not None
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as e:
        raise EnvironmentFault(
            f"the Ray cluster at {address} cannot be reached: {getattr(e, 'strerror', None) or e}; start it, or "
            f"correct {option('ray')} or RAY_ADDRESS"
        ) from e


@contextmanager
def _told(address: str | None = None) -> Iterator[None]:
    """Turn what Ray raises into an `EnvironmentFault`; a bug of ours stays what it is.

    Args:
        address: of the cluster that is being connected to, or None afterwards.
    """
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayTaskError as e:
        cause = getattr(e, "cause", None)
        if isinstance(cause, ModuleNotFoundError):
            raise EnvironmentFault(
                f"a machine of the cluster lacks {cause.name}; install there what is installed here: "
                f"{how_to_install('ray')}"
            ) from e
        raise
    except ray.exceptions.RayError as e:
        raise EnvironmentFault(_sentence(str(e), address)) from e
    except Exception as e:
        if address is None:
            raise
        raise EnvironmentFault(_sentence(str(e), address)) from e  # Ray raises anything here, plain ones too


def _sentence(said: str, address: str | None) -> str:
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", said)
    if address and len(versions) == 2:
        (theirs, their_python), (ours, our_python) = versions
        return (
            f"the Ray cluster at {address} has Ray {theirs} on Python {their_python}, and this process Ray {ours} on "
            f"Python {our_python}; use the same versions of both"
        )
    first = next((line.strip() for line in said.splitlines() if line.strip()), "no reason given")
    if address == LOCAL:
        return f"Ray did not start on this machine: {first}; try again, when it is less busy"
    if address:
        return f"the Ray cluster at {address} cannot be used: {first}; run this command on a machine of the cluster"
    return f"Ray gave up: {first}; run the same command again to go on"

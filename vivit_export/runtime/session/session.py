"""A session: an opened bundle that turns clips into logits and embeddings.

It does everything that does not depend on the back end: checking clips against the contract,
preprocessing, batches of any size, closing. `select.open_session` opens one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, TypeVar, final, overload

import numpy as np
import numpy.typing as npt

from vivit_export.arguments import whole_or_none
from vivit_export.contract import Contract
from vivit_export.cores import usable_cores
from vivit_export.errors import BundleError, ClipError, UsageError, option
from vivit_export.runtime.clips.pixels.arrays import as_array
from vivit_export.runtime.clips.pixels.preprocess import Frames, Preprocessor
from vivit_export.runtime.session.backend import Backend, Float32, join_outputs
from vivit_export.runtime.session.overlap import Plan, Work, run_overlapped
from vivit_export.runtime.session.prediction import Prediction

K = TypeVar("K")


@final
class Session:
    """An opened bundle; safe to share between threads, and a context manager.

    Attributes:
        contract: input, output and preprocessing.
        engine: name of the engine, as in `select.ORDER`.
        details: the engine with version, device and arithmetic, for people.
        passed_over: why each other engine was not chosen, by name.
        batches: (smallest, largest) number of clips per call of the engine.
        self_test: what `open_session` found when it compared the engine's result for a golden clip, for people.
    """

    def __init__(self, contract: Contract, backend: Backend, passed_over: Mapping[str, str]) -> None:
        self.contract = contract
        self.engine = backend.name
        self.details = backend.details
        self.passed_over = dict(passed_over)
        self.batches = backend.batches
        self.self_test = "left out"
        self._backend = backend
        self._preprocessor = Preprocessor(contract.clip, contract.preprocess)
        self._input = contract.io.inputs[0]
        self._state = threading.Condition()
        self._running, self._closed = 0, False

    def __call__(self, frames: Frames) -> Prediction:
        """Preprocess and run one clip.

        Args:
            frames: T frames, as `vivit_export.runtime.Preprocessor.crops` takes them; for a bundle
                of input mode ``frames`` they have its frame size.

        Raises:
            ClipError: the frames do not fit the contract.
            UsageError: the session is closed.
        """
        results = self._run(self.prepare(frames)[None])
        first = {name: array[0] for name, array in results.items()}
        return Prediction.from_outputs(first, self.contract)

    def infer(self, clips: npt.NDArray[Any]) -> Float32:
        """Return the logits of a batch, float32 (B, num_labels).

        Args:
            clips: as for `run`.

        Raises:
            ClipError: another dtype or shape, or no clip.
            UsageError: the bundle has no logits, or the session is closed.
        """
        if "logits" not in (output.name for output in self.contract.io.outputs):
            raise UsageError("this bundle has an embedding but no logits; take run(clips)['embedding']")
        return self.run(clips)["logits"]

    @overload
    def run(self, clips: npt.NDArray[Any]) -> dict[str, Float32]: ...

    @overload
    def run(
        self, clips: Iterator[Frames], *, batch: int | None = None, readers: int | None = None
    ) -> Iterator[Prediction]: ...

    def run(
        self, clips: npt.NDArray[Any] | Iterator[Frames], *, batch: int | None = None, readers: int | None = None
    ) -> dict[str, Float32] | Iterator[Prediction]:
        """Run a batch of any size and return every output; or clip after clip, of any number.

        An iterator gives clips as calling the session takes them: frames of any size, from a camera or a data set.
        While some run, others are taken and preprocessed. Memory: `Plan.num_batches` batches, and the frames of as
        many clips.

        Args:
            clips: uint8 (B, T, H, W, 3), resized and cropped (`Preprocessor.crops`). A bundle of
                input mode ``pixels`` also takes float32 (B, T, 3, H, W); one of mode ``frames``
                takes uint8 (B, T, h, w, 3) at its frame size instead. Not modified. Also tensors that NumPy can
                read, as those of PyTorch on the CPU. Or an iterator of clips; a clip must not change after it was
                given.
            batch: of an iterator: how many clips run at once; None: the most that the engine takes, or 1 on a server,
                which forms batches itself. 1 gives each result soonest.
            readers: of an iterator: how many clips are preprocessed at once; None: one per core.

        Returns:
            ``logits`` float32 (B, num_labels) and/or ``embedding`` float32 (B, hidden). Of an iterator: the prediction
            for each clip, in order, as soon as its batch is done or the next clip was taken.

        Raises:
            ClipError: another dtype or shape, or no clip. Of an iterator: in the place of the result.
            UsageError: the session is closed; or ``batch`` or ``readers`` is below 1, or given without an iterator.
        """
        if isinstance(clips, Iterator):
            return self._run_each(clips, batch, readers)
        for name, value in (("batch", batch), ("readers", readers)):
            if value is not None:
                raise UsageError(f"{option(name, value)} is for an iterator of clips; an array is one batch")
        array: Any = as_array(clips)
        self._check(array)
        if self.contract.io.mode == "pixels" and array.dtype == np.uint8:
            return self._run(array, self._preprocessor.to_pixels)
        return self._run(array)

    def _run_each(self, clips: Iterator[Frames], batch: int | None, readers: int | None) -> Iterator[Prediction]:
        works = (Work(None, partial(self._write, frames)) for frames in clips)
        outcomes = self.run_overlapped(works, items=batch, readers=readers)

        def predictions() -> Iterator[Prediction]:
            for _, outcome in outcomes:
                if isinstance(outcome, ClipError):
                    raise outcome
                yield Prediction.from_outputs({name: rows[0] for name, rows in outcome.items()}, self.contract)

        return predictions()

    def _write(self, frames: Frames, rows: npt.NDArray[Any]) -> None:
        if self.contract.io.mode == "frames":
            rows[0] = self.prepare(frames)
        else:
            self._preprocessor.write_clip(frames, rows[0])

    def run_overlapped(
        self,
        works: Iterable[Work[K]],
        *,
        rows: int = 1,
        items: int | None = None,
        at_once: int | None = None,
        readers: int | None = None,
    ) -> Generator[tuple[K, dict[str, Float32] | ClipError], None, None]:
        """Run items that are written straight to their places in batches, while earlier batches run.

        See `vivit_export.runtime.session.overlap`, which says what is yielded and how much memory is used.

        Args:
            works: the items; each writes (rows, *shape) of the graph's input, in its dtype.
            rows: clips of each item.
            items: items of a batch; None: as many as fit the engine's largest, or 1 on a server.
            at_once: batches that run at once; None: what suits the engine.
            readers: items that are written at once; None: one per core.

        Raises:
            UsageError: a number below 1; or the session is closed.
        """
        items, readers = whole_or_none("batch", items, 1), whole_or_none("readers", readers, 1)
        if items is None:
            items = 1 if self.engine == "triton" else max(1, self.batches[1] // rows)
        at_once = at_once or int(getattr(self._backend, "at_once", 1))
        plan = Plan(rows, items, readers or usable_cores(), at_once)
        return run_overlapped(self.run, self._allocate, works, plan)

    def _allocate(self, count: int) -> npt.NDArray[Any]:
        """Make the memory of a batch: on a GPU pinned, from which it is copied without a stop."""
        shape = (count, *(int(d) for d in self._input.shape[1:]))
        allocate: Callable[..., npt.NDArray[Any]] = getattr(self._backend, "allocate", np.empty)
        return allocate(shape, np.dtype(self._input.dtype))

    def prepare(self, frames: Frames) -> npt.NDArray[Any]:
        """Do the preprocessing that the graph does not do itself, for one clip.

        Args:
            frames: as for calling the session.

        Returns:
            The clip without a batch dimension, in the dtype and shape of the graph's input.

        Raises:
            ClipError: the frames do not fit the contract.
        """
        mode, size = self.contract.io.mode, self.contract.io.frame_size
        if mode == "pixels":
            pixels: npt.NDArray[np.float32] = self._preprocessor(frames)[0]
            return pixels
        if mode == "crops":
            return self._preprocessor.crops(frames)
        stacked: Any = _stacked(frames) if isinstance(frames, (list, tuple)) else as_array(frames)
        clip = self.contract.clip
        needed = (clip.num_frames, *(size or ()), 3)
        if not isinstance(stacked, np.ndarray) or stacked.dtype != np.uint8 or stacked.shape != needed:
            raise ClipError(
                f"this bundle resizes in the graph and takes uint8 frames {_shape(needed)}, got {_described(stacked)}; "
                "for videos of other sizes export with --input crops"
            )
        return stacked

    def run_in_steps(self, clips: npt.NDArray[Any]) -> dict[str, float]:
        """Run one batch, waiting after each step, and return the seconds of each: copies and computation.

        A CPU engine has one step, ``compute``.

        Args:
            clips: a batch in the dtype and shape of the graph's input, within `batches`.

        Raises:
            UsageError: the session is closed.
        """
        with self._open():
            in_steps: Callable[[npt.NDArray[Any]], dict[str, float]] | None
            in_steps = getattr(self._backend, "run_in_steps", None)
            if in_steps is not None:
                return dict(in_steps(clips))
            start = time.perf_counter()
            self._backend.run(clips)
            return {"compute": time.perf_counter() - start}

    def close(self, *, wait: bool = True) -> None:
        """Free the engine; closing twice does nothing.

        Args:
            wait: wait for calls in progress. False cancels those on a server, which raise
                `concurrent.futures.CancelledError`; calls of an engine on this machine are always waited for.
        """
        with self._state:
            if self._closed:
                return
            self._closed = True
            cancel: Callable[[], None] | None = getattr(self._backend, "cancel", None)
            if cancel is not None and not wait:
                cancel()
            self._state.wait_for(lambda: not self._running)
        self._backend.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(wait=kind is None)  # after Ctrl-C nobody waits for a server that hangs

    def __reduce__(self) -> NoReturn:  # what pickle and copy call
        raise UsageError(
            "a session belongs to this process and cannot be pickled or copied; open another there with open_session"
        )

    def __repr__(self) -> str:
        return f"<Session on {self.details}{', closed' if self._closed else ''}>"

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._state:
            if self._closed:
                raise UsageError("the session is closed; open another with open_session")
            self._running += 1
        try:
            yield
        finally:
            with self._state:
                self._running -= 1
                self._state.notify_all()

    def _check(self, clips: npt.NDArray[Any]) -> None:
        """Refuse anything that is not a batch for this bundle."""
        clip = self.contract.clip
        accepted = [(np.dtype(self._input.dtype), tuple(int(d) for d in self._input.shape[1:]))]
        if self.contract.io.mode == "pixels":
            accepted.insert(0, (np.dtype(np.uint8), (clip.num_frames, clip.height, clip.width, 3)))
        if not isinstance(clips, np.ndarray) or (clips.dtype, clips.shape[1:]) not in accepted:
            ways = " or ".join(f"{dtype} {_shape(('B', *shape))}" for dtype, shape in accepted)
            raise ClipError(f"clips must be an array {ways}, got {_described(clips)}")
        if not len(clips):
            raise ClipError("there are no clips in the batch; pass at least one")

    def _check_results(self, results: Mapping[str, Float32], count: int) -> None:
        """Refuse what the contract does not promise: labels would be printed for numbers that are not theirs."""
        promised = {tensor.name: (count, *tensor.shape[1:]) for tensor in self.contract.io.outputs}
        if any(array.dtype != np.float32 or array.shape != promised.get(name) for name, array in results.items()):
            returned = ", ".join(f"{name} {_described(array)}" for name, array in results.items())
            needed = ", ".join(f"{name} float32 {_shape(shape)}" for name, shape in promised.items())
            raise BundleError(
                f"the model returned {returned}, but its contract promises {needed}; export the bundle again"
            )

    def _run(self, clips: npt.NDArray[Any], prepare: Any = None) -> dict[str, Float32]:
        """Run a batch in parts that the engine accepts, each prepared just before it runs."""
        low, high = self.batches
        parts = []
        with self._open():
            for start in range(0, len(clips), high):
                part = clips[start : start + high]
                count = len(part)
                if count < low:  # the engine has no such small batch: its last clip again, dropped below
                    part = part[np.minimum(np.arange(low), count - 1)]
                results = self._backend.run(prepare(part) if prepare else part)
                self._check_results(results, len(part))
                parts.append({name: array[:count] for name, array in results.items()})
        return parts[0] if len(parts) == 1 else join_outputs(parts)


def _stacked(frames: Any) -> Any:
    """Return a list of frames as one array, or the list itself if their shapes differ."""
    arrays = [np.asarray(as_array(frame)) for frame in frames]
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else frames


def _shape(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {_shape(value.shape)}"
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
